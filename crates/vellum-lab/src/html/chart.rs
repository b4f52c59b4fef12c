//! The two drawings of the page, as SVG.
//!
//! ```text
//!   bars                                       lines: one of many
//!     radix4 |#########==|  2 / 3               10 +        o 9
//!     htab   |####=======|  1 / 3                1 +  o----/   . . .   the others, pale
//!     flat    not run                              +--------------
//!             # front    = back                       a    b    c
//! ```
//!
//! Drawings are as wide as a phone, and a wide screen has several side by side: so text is never
//! scaled down. All colours are the page's, by class, so one drawing serves light and dark.
//!
//! # Invariants
//!
//! - What was not measured has no bar and no point; a bar that is not drawn in full says so.
//! - Text stays in the drawing: names are cut, numbers are short, and margins are for both.

use super::text::{Text, number, short_name};
use core::fmt::Write;

/// One bar, or two on each other.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bar {
    /// What it is of.
    pub(super) name: String,
    /// The bar in front.
    pub(super) front: Option<f64>,
    /// The paler and thicker one behind it.
    pub(super) back: Option<f64>,
}

const BARS_WIDTH: f64 = 380.0;
const ROW: f64 = 22.0;
const NAMES: f64 = 150.0;
const LONGEST: f64 = 128.0;
const NAME_CHARS: usize = 20;

/// A bar so many times as long as any other would make specks of them, and is cut.
const CUT: f64 = 8.0;

/// What the longest bar of a scale stands for: the largest value, or the second where that is
/// [cut](CUT).
fn longest(bars: &[Bar]) -> f64 {
    let (mut most, mut second) = (0.0_f64, 0.0_f64);
    for bar in bars {
        let value = bar.front.unwrap_or_default().max(bar.back.unwrap_or_default());
        second = second.max(value.min(most));
        most = most.max(value);
    }
    if second > 0.0 && most > CUT * second { second } else { most }
}

/// Bars below each other, on a scale of their own from 0 to the longest.
pub(super) fn bars(bars: &[Bar], label: &str) -> String {
    let most = longest(bars);
    let length = |value: f64| if most > 0.0 { (value / most).min(1.0) * LONGEST } else { 0.0 };
    let height = ROW * bars.len() as f64 + 4.0;
    let mut svg = open(BARS_WIDTH, height, label);
    for (row, bar) in bars.iter().enumerate() {
        let middle = ROW * row as f64 + ROW / 2.0 + 2.0;
        let base = middle + 4.0;
        let name = short_name(&bar.name, NAME_CHARS);
        let x = NAMES - 6.0;
        svg += &format!("<text class=\"n\" x=\"{x}\" y=\"{base}\">{name}</text>");
        let mut end = NAMES;
        for (value, class, thick) in [(bar.back, "back", 16.0), (bar.front, "front", 9.0)] {
            let Some(value) = value else { continue };
            let (width, y) = (length(value), middle - thick / 2.0);
            end = f64::max(end, NAMES + width);
            svg += &format!(
                "<rect class=\"{class}\" x=\"{NAMES}\" y=\"{y}\" width=\"{width:.1}\" height=\"{thick}\"/>"
            );
        }
        let (class, value) = match (bar.front, bar.back) {
            (Some(front), Some(back)) => ("v", format!("{} / {}", number(front), number(back))),
            (Some(one), None) | (None, Some(one)) => ("v", number(one)),
            (None, None) => ("none", "not run".to_owned()),
        };
        let is_cut = [bar.front, bar.back].into_iter().flatten().any(|value| value > most);
        let value = if is_cut { value + " (cut)" } else { value };
        let x = end + 5.0;
        svg += &format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{base}\">{value}</text>");
    }
    svg += &format!("<path class=\"axis\" d=\"M{NAMES} 0V{height}\"/></svg>");
    svg
}

/// Lines over the same places, of which each drawing shows one before all others.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plot {
    /// The places, each as one or two lines of text.
    pub(super) ticks: Vec<String>,
    /// The lines.
    pub(super) lines: Vec<Line>,
}

/// What one design, or trace, has at each place.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Line {
    /// What it is of.
    pub(super) name: String,
    /// The values.
    pub(super) values: Vec<Option<f64>>,
    /// Values to compare them with, dashed; may be empty.
    pub(super) dashed: Vec<Option<f64>>,
}

const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 178.0;
const LEFT: f64 = 42.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 34.0;

/// Where values are on the page.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scale {
    /// From 0 to this.
    Linear(f64),
    /// From a power of ten to another; what is less, as 0 is, lies at the foot.
    Log(i32, i32),
}

impl Scale {
    /// A scale for these values: of powers if small ones would be lost otherwise.
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        const LOST: f64 = 40.0;
        let most = values.clone().fold(0.0_f64, f64::max);
        let least = values.filter(|&n| n > 0.0).fold(f64::INFINITY, f64::min);
        if most <= 0.0 {
            return Self::Linear(1.0);
        }
        if most / least <= LOST {
            return Self::Linear(most);
        }
        // What is below a millionth of the most need not be told from 0.
        let (low, high) = (least.log10().floor() as i32, most.log10().ceil() as i32);
        Self::Log(low.max(high - 7), high)
    }

    /// From 0, the foot, to 1.
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear(most) => value / most,
            Self::Log(_, _) if value <= 0.0 => 0.0,
            Self::Log(low, high) => {
                let (low, high) = (f64::from(low), f64::from(high));
                ((value.log10() - low) / (high - low)).max(0.0)
            }
        }
    }

    /// Values to be written at the side.
    fn ticks(self) -> Vec<f64> {
        match self {
            Self::Linear(most) => vec![0.0, most / 2.0, most],
            Self::Log(low, high) => {
                let step = if high - low > 4 { 2 } else { 1 };
                (low..=high).step_by(step).map(|power| 10_f64.powi(power)).collect()
            }
        }
    }
}

impl Plot {
    fn scale(&self) -> Scale {
        let values = self.lines.iter().flat_map(|line| line.values.iter().chain(&line.dashed));
        Scale::of(values.copied().flatten())
    }

    fn x(&self, place: usize) -> f64 {
        let step = (WIDTH - LEFT - RIGHT) / self.ticks.len().max(1) as f64;
        LEFT + step * (place as f64 + 0.5)
    }

    /// The drawing that shows line `shown`.
    pub(super) fn draw(&self, shown: usize, label: &str) -> String {
        let scale = self.scale();
        let mut svg = open(WIDTH, HEIGHT, label);
        self.frame(&mut svg, scale);
        for (i, other) in self.lines.iter().enumerate() {
            if i != shown {
                svg += &self.path(&other.values, scale, "pale");
            }
        }
        if let Some(line) = self.lines.get(shown) {
            svg += &self.path(&line.dashed, scale, "dashed");
            svg += &self.path(&line.values, scale, "line");
            self.points(&mut svg, &line.dashed, scale, ("hollow", -7.0));
            // Beside dashed values, which lie above, the numbers go below.
            let offset = if line.dashed.is_empty() { -7.0 } else { 14.0 };
            self.points(&mut svg, &line.values, scale, ("dot", offset));
            if line.values.iter().chain(&line.dashed).all(Option::is_none) {
                let (x, y) = ((LEFT + WIDTH) / 2.0, HEIGHT / 2.0);
                svg += &format!("<text class=\"none m\" x=\"{x}\" y=\"{y}\">not run</text>");
            }
        }
        svg + "</svg>"
    }

    /// Lines across with their values, and the places below.
    fn frame(&self, svg: &mut String, scale: Scale) {
        for value in scale.ticks() {
            let y = height_of(scale, value);
            let (x, right, base) = (LEFT - 5.0, WIDTH - RIGHT, y + 4.0);
            let text = number(value);
            *svg += &format!("<path class=\"grid-line\" d=\"M{LEFT} {y:.1}H{right}\"/>");
            *svg += &format!("<text class=\"t e\" x=\"{x}\" y=\"{base:.1}\">{text}</text>");
        }
        for (place, tick) in self.ticks.iter().enumerate() {
            for (row, text) in tick.split('\n').enumerate() {
                let (x, y) = (self.x(place), HEIGHT - BOTTOM + 15.0 + 12.0 * row as f64);
                let text = Text(text);
                *svg += &format!("<text class=\"t m\" x=\"{x:.1}\" y=\"{y}\">{text}</text>");
            }
        }
    }

    /// The line, broken where there is no value.
    fn path(&self, values: &[Option<f64>], scale: Scale, class: &str) -> String {
        let mut d = String::new();
        let mut pen = 'M';
        for (place, value) in values.iter().enumerate() {
            let Some(value) = value else {
                pen = 'M';
                continue;
            };
            let (x, y) = (self.x(place), height_of(scale, *value));
            // Into a String that cannot fail.
            let _ = write!(d, "{pen}{x:.1} {y:.1}");
            pen = 'L';
        }
        if d.is_empty() { d } else { format!("<path class=\"{class}\" d=\"{d}\"/>") }
    }

    /// A mark and a number at each value.
    fn points(
        &self,
        svg: &mut String,
        values: &[Option<f64>],
        scale: Scale,
        (class, offset): (&str, f64),
    ) {
        for (place, value) in values.iter().enumerate() {
            let Some(value) = value else { continue };
            let (x, y) = (self.x(place), height_of(scale, *value));
            *svg += &format!("<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>");
            let (base, text) = (y + offset, number(*value));
            *svg += &format!("<text class=\"p m\" x=\"{x:.1}\" y=\"{base:.1}\">{text}</text>");
        }
    }
}

fn height_of(scale: Scale, value: f64) -> f64 {
    let foot = HEIGHT - BOTTOM;
    foot - scale.place(value) * (foot - TOP)
}

fn open(width: f64, height: f64, label: &str) -> String {
    let label = Text(label);
    format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{label}\">")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(front: Option<f64>, back: Option<f64>) -> Bar {
        Bar { name: "a<b".into(), front, back }
    }

    #[test]
    fn a_bar_is_as_long_as_its_value() {
        let svg = bars(&[bar(Some(1.0), Some(4.0)), bar(Some(2.0), None)], "label");
        for width in ["32.0", "128.0", "64.0"] {
            assert!(svg.contains(&format!("width=\"{width}\"")), "{width} in {svg}");
        }
        assert!(svg.contains(">1 / 4<") && svg.contains(">2<") && svg.contains("a&lt;b"), "{svg}");
    }

    #[test]
    fn a_bar_that_would_make_specks_of_the_others_is_cut_and_says_so() {
        let svg = bars(&[bar(Some(1.0), Some(2.0)), bar(Some(17.0), None)], "label");
        assert!(svg.contains("width=\"64.0\"") && svg.contains(">17 (cut)<"), "{svg}");
        assert_eq!(svg.matches("width=\"128.0\"").count(), 2, "{svg}");
        let whole = bars(&[bar(Some(2.0), None), bar(Some(16.0), None)], "label");
        assert!(whole.contains("width=\"16.0\"") && !whole.contains("cut"), "{whole}");
        let alone = bars(&[bar(Some(0.0), None), bar(Some(16.0), None)], "label");
        assert!(!alone.contains("cut"), "nothing to compare with: {alone}");
    }

    #[test]
    fn what_was_not_measured_has_no_bar() {
        let svg = bars(&[bar(None, None)], "label");
        assert!(!svg.contains("<rect") && svg.contains(">not run<"), "{svg}");
        let zero = bars(&[bar(Some(0.0), None)], "label");
        assert!(zero.contains("width=\"0.0\"") && zero.contains(">0<"), "{zero}");
    }

    fn plot(lines: &[&[Option<f64>]]) -> Plot {
        let line = |values: &&[Option<f64>]| Line { values: values.to_vec(), ..Line::default() };
        let ticks = (0..lines[0].len()).map(|n| n.to_string()).collect();
        Plot { ticks, lines: lines.iter().map(line).collect() }
    }

    #[test]
    fn a_line_breaks_where_there_is_no_value() {
        let svg = plot(&[&[Some(1.0), Some(1.0), None, Some(1.0)]]).draw(0, "label");
        let line = svg.split("class=\"line\" d=\"").nth(1).and_then(|d| d.split('"').next());
        let line = line.expect("a line");
        assert_eq!((line.matches('M').count(), line.matches('L').count()), (2, 1), "{line}");
        assert_eq!(svg.matches("<circle").count(), 3);
        let none = plot(&[&[None, None], &[Some(1.0), Some(2.0)]]).draw(0, "label");
        assert!(none.contains(">not run<") && !none.contains("<circle"), "{none}");
    }

    #[test]
    fn values_far_apart_go_by_powers() {
        let scale = |values: &[f64]| Scale::of(values.iter().copied());
        assert_eq!(scale(&[]), Scale::Linear(1.0));
        assert_eq!(scale(&[0.0, 2.0, 80.0]), Scale::Linear(80.0));
        assert_eq!(scale(&[0.0, 2.0, 81.0]), Scale::Log(0, 2));
        assert_eq!(scale(&[1e-9, 1.0]), Scale::Log(-7, 0));
        let powers = Scale::Log(0, 2);
        assert_eq!(
            [0.0, 1e-3, 1.0, 10.0, 100.0].map(|n| powers.place(n)),
            [0.0, 0.0, 0.0, 0.5, 1.0]
        );
        assert_eq!(Scale::Linear(4.0).place(1.0), 0.25);
    }
}
