//! Text and numbers as a page shows them.
//!
//! ```text
//!   a<b & "c"      a&lt;b &amp; &quot;c&quot;       both in text and in an attribute
//!   1234567        1.23M
//! ```
//!
//! # Invariants
//!
//! - Whatever came from a file's name or from a report goes through [`Text`] (or [`short_name`]), so
//!   it can be neither markup nor change the direction of what is beside it.

use core::fmt::{self, Write};

/// What a page shows where a character has no place in it.
const NO_CHARACTER: char = '\u{fffd}';

/// Text to be put into a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'t>(pub(super) &'t str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c if c.is_control() || is_direction(c) || is_noncharacter(c) => {
                    f.write_char(NO_CHARACTER)?;
                }
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Whether a character changes the direction of the text around it.
fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether no document may have the character.
fn is_noncharacter(c: char) -> bool {
    u32::from(c) & 0xfffe == 0xfffe || matches!(c, '\u{fdd0}'..='\u{fdef}')
}

/// The name, cut where a drawing has no more room, as markup.
pub(super) fn short_name(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return Text(name).to_string();
    }
    let kept: String = name.chars().take(most.saturating_sub(1)).collect();
    format!("<title>{}</title>{}\u{2026}", Text(name), Text(&kept))
}

/// Three digits, in a unit that keeps them short.
pub(super) fn number(n: f64) -> String {
    match n {
        0.0 => "0".to_owned(),
        n if n >= 999.5e9 => format!("{:.2e}", n),
        n if n >= 999.5e6 => digits(n / 1e9) + "G",
        n if n >= 999.5e3 => digits(n / 1e6) + "M",
        n if n >= 9999.5 => digits(n / 1e3) + "k",
        n if n >= 0.0005 => digits(n),
        n => format!("{n:.1e}"),
    }
}

fn digits(n: f64) -> String {
    match n {
        n if n >= 99.95 => format!("{n:.0}"),
        n if n >= 9.995 => trimmed(&format!("{n:.1}")),
        n if n >= 0.0995 => trimmed(&format!("{n:.2}")),
        n => trimmed(&format!("{n:.3}")),
    }
}

fn trimmed(text: &str) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_is_markup() {
        let name = "<b a='1' c=\"2\">&amp;\n\u{1b}[31m\u{202e}\u{2068}x\u{ffff}";
        let shown = Text(name).to_string();
        assert_eq!(
            shown,
            "&lt;b a=&#39;1&#39; c=&quot;2&quot;&gt;&amp;amp;\u{fffd}\u{fffd}[31m\u{fffd}\u{fffd}x\u{fffd}"
        );
    }

    #[test]
    fn a_long_name_is_cut_and_told_in_full() {
        assert_eq!(short_name("radix4", 6), "radix4");
        assert_eq!(
            short_name("<&<&<&", 3),
            "<title>&lt;&amp;&lt;&amp;&lt;&amp;</title>&lt;&amp;\u{2026}"
        );
    }

    #[test]
    fn numbers_have_three_digits() {
        for (n, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (0.012, "0.012"),
            (0.104, "0.1"),
            (0.0014, "0.001"),
            (0.000_12, "1.2e-4"),
            (2.346, "2.35"),
            (9.999, "10"),
            (42.06, "42.1"),
            (99.96, "100"),
            (1234.4, "1234"),
            (12_345.0, "12.3k"),
            (999_900.0, "1M"),
            (1.5e6, "1.5M"),
            (2.0e9, "2G"),
            (7.2e16, "7.20e16"),
        ] {
            assert_eq!(number(n), text, "{n}");
        }
    }
}
