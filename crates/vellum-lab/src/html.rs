//! The report as a page to look at: one file, without script, network or anything beside it.
//!
//! ```text
//!   Report --figures--> Figure { panels, numbers, notes, command } --+
//!                         bars, lines (chart.rs)                      +--> one page
//!   style.css (light, dark, wide, narrow) ----------------------------+
//! ```
//!
//! The page says what the JSON says (docs/report.md), and is as reproducible: it has no date and no
//! speed of the machine.
//!
//! # Invariants
//!
//! - Whatever is not ours (names of traces, arguments) is escaped: see `html/text.rs`.
//! - What was not measured is said in words, and drawn nowhere.
//! - The page asks for nothing: its policy forbids scripts and every request.

use crate::parts::Part;
use crate::policies::PoliciesReport;
use crate::report::Report;
use crate::table::grouped;
use figures::Figure;
use std::ffi::{OsStr, OsString};
use text::Text;

mod chart;
mod figures;
mod policies;
mod text;

const STYLE: &str = include_str!("html/style.css");

/// The command that a report was made with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Options that every part needs.
    options: Vec<String>,
    /// Whether it joined reports, and so cannot make a part by itself.
    is_merge: bool,
}

impl Command {
    /// From the arguments that follow `compare`. Which part to do, and where to write, is left out.
    #[must_use]
    pub fn new(arguments: impl IntoIterator<Item = OsString>) -> Self {
        const DROPPED: [&str; 4] = ["--json", "--html", "--part", "--shard"];
        let mut options = Vec::new();
        let mut is_merge = false;
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let text = argument.to_string_lossy();
            let (name, value) = text.split_once('=').map_or((&*text, None), |(n, v)| (n, Some(v)));
            if DROPPED.contains(&name) {
                if value.is_none() {
                    arguments.next();
                }
                continue;
            }
            is_merge |= name == "--merge";
            options.push(quoted(&argument));
        }
        Self { options, is_merge }
    }

    /// What makes all of them.
    fn whole(&self) -> String {
        let words =
            ["cargo xtask compare".to_owned()].into_iter().chain(self.options.iter().cloned());
        words.chain(["--html report.html".to_owned()]).collect::<Vec<_>>().join(" ")
    }

    /// What makes one figure.
    fn of(&self, part: Part) -> String {
        let mut words = vec!["cargo xtask compare".to_owned()];
        if !self.is_merge {
            words.push(format!("--part {part}"));
        }
        words.extend(self.options.iter().cloned());
        words.push("--html report.html".to_owned());
        words.join(" ")
    }
}

/// As a shell wants it.
fn quoted(argument: &OsStr) -> String {
    let text = argument.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=+,.:/@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The page of a report.
#[must_use]
pub fn render(report: &Report, command: &Command) -> String {
    let text = Words {
        title: "Page-table designs compared",
        introduction: introduction(report),
        foot: "Cycles are those of a cache model, not of a processor; <code>docs/report.md</code> \
               says what is a model here and what is not.",
    };
    page(&text, &figures::of(report, command))
}

/// The page of a comparison of replacement policies.
#[must_use]
pub fn render_policies(report: &PoliciesReport, command: &Command) -> String {
    let mut introduction = String::new();
    for stream in &report.streams {
        introduction += &format!(
            "<p><b>{}</b>: {} references to {} pages.</p>\n",
            Text(&stream.trace),
            grouped(stream.references),
            grouped(stream.pages.into())
        );
    }
    let text = Words {
        title: "Replacement policies compared",
        introduction,
        foot: "Misses are counted, not modelled; <code>docs/report.md</code> says how.",
    };
    page(&text, &policies::of(report, command))
}

/// What is said around figures; markup of our own.
struct Words {
    title: &'static str,
    introduction: String,
    foot: &'static str,
}

fn page(words: &Words, figures: &[Figure]) -> String {
    let Words { title, introduction, foot } = words;
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n\
         <link rel=\"icon\" href=\"data:,\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<h1>{title}</h1>\n{introduction}</header>\n<nav aria-label=\"Figures\">\n<ul>\n"
    );
    for figure in figures {
        page += &format!("<li><a href=\"#{}\">{}</a></li>\n", figure.id, Text(figure.title));
    }
    page += "</ul>\n</nav>\n<main>\n";
    for figure in figures {
        section(&mut page, figure);
    }
    page += &format!(
        "</main>\n<footer>\n<p>{foot} Vellum {}.</p>\n</footer>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    );
    page
}

/// What was run, as paragraphs.
fn introduction(report: &Report) -> String {
    let mut text = String::new();
    if let Some(run) = report.runs.first() {
        text += &format!(
            "<p>TLB <b>{}</b>, walk caches <b>{}</b>, cache of table lines <b>{}</b>; {}.</p>\n",
            Text(&run.tlb_preset),
            Text(&run.walk_cache),
            Text(&run.cache),
            if run.asid { "address spaces have identifiers" } else { "each switch flushes" }
        );
    }
    text += "<p>Each panel has a scale of its own where it has bars, of which one marked (cut) is far longer than it is \
             drawn; lines of one figure share theirs. \
             Where a design could not be run, the reason is below the figure.</p>\n";
    if let Some(shard) = report.shard {
        text += &format!("<p>This is shard {shard} alone: the other rows are missing.</p>\n");
    }
    text
}

/// One figure, with its numbers and how to make it.
fn section(page: &mut String, figure: &Figure) {
    *page += &format!("<section id=\"{}\">\n<h2>{}</h2>\n", figure.id, Text(figure.title));
    if figure.panels.is_empty() {
        *page += "<p>Not in this report.</p>\n";
    } else {
        *page += &format!("<p>{}</p>\n<p class=\"key\">{}</p>\n", Text(&figure.lead), figure.key);
        *page += &format!("<div class=\"grid {}\">\n", figure.kind);
        for panel in &figure.panels {
            let (title, small) = (Text(&panel.title), Text(&panel.small));
            let small = if panel.small.is_empty() {
                String::new()
            } else {
                format!(" <small>{small}</small>")
            };
            *page += &format!(
                "<figure><figcaption>{title}{small}</figcaption>\n{}\n</figure>\n",
                panel.drawing
            );
        }
        *page += "</div>\n";
        notes(page, &figure.notes);
        numbers(page, figure);
    }
    let how = if figure.panels.is_empty() { "It is made by" } else { "Made by" };
    *page += &format!(
        "<p class=\"made\">{how} <code>{}</code></p>\n</section>\n",
        Text(&figure.command)
    );
}

fn notes(page: &mut String, notes: &[String]) {
    if notes.is_empty() {
        return;
    }
    *page += "<ul class=\"notes\">\n";
    for note in notes {
        *page += &format!("<li>{}</li>\n", Text(note));
    }
    *page += "</ul>\n";
}

fn numbers(page: &mut String, figure: &Figure) {
    let table = &figure.numbers;
    let cells = |tag: &str, row: &[String]| {
        let cell = |(i, text): (usize, &String)| {
            let class = if i < table.names { " class=\"name\"" } else { "" };
            format!("<{tag}{class}>{}</{tag}>", Text(text))
        };
        row.iter().enumerate().map(cell).collect::<String>()
    };
    *page +=
        "<details>\n<summary>Numbers</summary>\n<div class=\"scroll\" tabindex=\"0\">\n<table>\n";
    *page += &format!("<thead><tr>{}</tr></thead>\n<tbody>\n", cells("th", &table.header));
    for row in &table.rows {
        *page += &format!("<tr>{}</tr>\n", cells("td", row));
    }
    *page += "</tbody>\n</table>\n</div>\n</details>\n";
}

#[cfg(test)]
mod tests;
