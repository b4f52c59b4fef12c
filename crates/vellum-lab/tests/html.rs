//! The page of a report: in a browser, and by the command that writes it.
//!
//! ```text
//!   Report with hostile names --> page.html <--iframes, 390 and 1,280 wide-- look.html
//!        headless Chromium, light and dark --> errors, overflow, text cut off
//! ```

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use core::time::Duration;
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use vellum_lab::designs::DESIGNS;
use vellum_lab::html;
use vellum_lab::report::Report;

/// Names that a browser may find, the path of one first.
const BROWSERS: [&str; 5] =
    ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];

/// How long it may take to look at a page, on a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(180);

/// What the page holds says nothing into the console but this, which shows that it is heard.
const HEARD: &str = "the console is heard";

/// Looks at the page in two widths, and writes what is wrong into `out`.
const LOOK: &str = r#"<!DOCTYPE html><meta charset="utf-8"><title>look</title><pre id="out"></pre>
<iframe src="page.html" width="390" height="800" style="border:0"></iframe>
<iframe src="page.html" width="1280" height="800" style="border:0"></iframe>
<script>
onload = () => {
  const said = [];
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, root = page.documentElement;
    for (const details of page.querySelectorAll("details")) details.open = true;
    const at = frame.width + ": ";
    if (root.clientWidth > frame.width || root.clientWidth < frame.width - 20)
      said.push(at + "not looked at, " + root.clientWidth);
    if (root.scrollWidth > root.clientWidth)
      said.push(at + "overflow, " + root.scrollWidth + " of " + root.clientWidth);
    for (const svg of page.querySelectorAll("svg")) {
      const box = svg.viewBox.baseVal;
      for (const text of svg.querySelectorAll("text")) {
        const b = text.getBBox();
        if (b.x < 0 || b.y < 0 || b.x + b.width > box.width || b.y + b.height > box.height)
          said.push(at + "cut off: " + text.textContent);
      }
      const scale = svg.getBoundingClientRect().width / box.width;
      if (scale < 0.8) said.push(at + "drawing scaled to " + scale);
    }
    said.push(at + "drawings " + page.querySelectorAll("svg").length +
      ", scripts " + page.querySelectorAll("script").length +
      ", background " + getComputedStyle(page.body).backgroundColor);
  }
  console.log("the console is heard");
  document.getElementById("out").textContent = said.join("\n");
};
</script>
"#;

fn browser() -> Option<PathBuf> {
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    let found = folders.iter().flat_map(|folder| BROWSERS.map(|name| folder.join(name)));
    named.into_iter().chain(found).find(|file| file.is_file())
}

/// A report of all designs, with names that are no good for a page.
fn report() -> Report {
    let hostile = "</style><script>alert(1)</script>'\"&\u{202e}";
    let long = format!("{hostile}{}", "x".repeat(180));
    let designs = || DESIGNS.iter().map(|design| design.name).chain([&*long, "missing"]);
    let unsupported = |design: &str| (design == "missing").then(|| long.clone());
    let run = |(i, design): (usize, &str), trace: &str| {
        let mut run = json!({
            "trace": trace, "design": design, "tlb_preset": hostile, "walk_cache": long, "cache": hostile,
            "asid": true, "events": 100_000_000_000_u64, "pages": 1000,
        });
        match unsupported(design) {
            Some(reason) => run["unsupported"] = reason.into(),
            None => {
                run["walk"] = json!({
                    "count": 99_000_000_000_u64, "refs_mean": 1.5, "refs_p99": 2, "refs_max": 99,
                    "lines_mean": 1.5, "cache_misses_mean": 0.5, "cycles_mean": 8888.88 / (i + 1) as f64,
                });
            }
        }
        run
    };
    let traces = ["perl-hash", &*long];
    let runs: Vec<_> = traces
        .iter()
        .flat_map(|trace| designs().enumerate().map(|item| run(item, trace)).collect::<Vec<_>>())
        .collect();
    let sparsity =
        [(512_u64, 1_u64 << 21, 8.123_f64), (1, 1 << 21, 4321.0), (1, 1 << 30, 987_654.0)];
    let sparsity: Vec<_> = designs()
        .flat_map(|design| sparsity.map(|(pages, bytes, mean)| {
            json!({ "design": design, "pages_per_region": pages, "region_bytes": bytes, "pages": 24_576,
                "unsupported": unsupported(design),
                "bytes_per_page_mean": (design != "missing").then_some(mean) })
        }))
        .collect();
    let tlb: Vec<_> = traces
        .iter()
        .flat_map(|trace| [(256, 499.9), (4096, 12.5), (16_384, 0.0)].map(|(entries, misses)| {
            json!({ "trace": trace, "design": "radix4", "tlb_preset": hostile, "l2_entries": entries,
                "l2_ways": 8, "events": 1_000_000, "pages": 9, "l1_misses": 2_000_000,
                "l2_misses": (misses * 1000.0) as u64 })
        }))
        .collect();
    let switches: Vec<_> = designs()
        .flat_map(|design| [(1000, 23.456), (1_000_000, 7.0)].map(|(quantum, cycles)| {
            [true, false].map(|asid| json!({ "trace": long, "design": design, "quantum": quantum,
                "asid": asid, "events": 1, "unsupported": unsupported(design),
                "walk_cycles_per_event": (design != "missing").then_some(cycles * if asid { 1.0 } else { 9.5 }) }))
        }))
        .flatten()
        .collect();
    let whole: Value = json!({ "schema": 1, "runs": runs, "sparsity": sparsity, "tlb": tlb, "switches": switches });
    serde_json::from_value(whole).unwrap()
}

/// What a browser says about `look.html` of the folder: what it prints, and what it complains of.
fn look(browser: &Path, folder: &Path, options: &[&str]) -> (String, String) {
    let out = |name: &str| Stdio::from(fs::File::create(folder.join(name)).unwrap());
    let profile = folder.join("profile");
    let mut child = Command::new(browser)
        .args([
            "--headless",
            "--disable-gpu",
            "--no-sandbox",
            "--no-first-run",
            "--disable-extensions",
        ])
        .args(["--allow-file-access-from-files", "--enable-logging=stderr", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(options)
        .arg(format!("file://{}", folder.join("look.html").display()))
        .stdin(Stdio::null())
        .stdout(out("dom"))
        .stderr(out("log"))
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > LIMIT {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{} did not end", browser.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let read = |name: &str| {
        let mut bytes = Vec::new();
        fs::File::open(folder.join(name)).unwrap().read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (dom, log) = (read("dom"), read("log"));
    let said = dom.split_once("<pre id=\"out\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let said = said.map(|(said, _)| said.to_owned());
    (said.unwrap_or_else(|| panic!("{}: {dom}\n{log}", browser.display())), log)
}

#[test]
fn a_browser_finds_no_error_and_nothing_that_is_too_wide() {
    let Some(browser) = browser() else {
        println!("skipped: no Chromium in PATH, nor by the variable CHROMIUM");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().canonicalize().unwrap();
    let page = html::render(&report(), &html::Command::new(["--trace".into(), "x'<b>".into()]));
    let drawings = page.matches("<svg").count();
    assert!(drawings > 2 + 2 * DESIGNS.len(), "{drawings}");
    fs::write(folder.join("page.html"), page).unwrap();
    fs::write(folder.join("look.html"), LOOK).unwrap();
    let colours = [("light", "1"), ("dark", "0")].map(|(name, scheme)| {
        let scheme = format!("--blink-settings=preferredColorScheme={scheme}");
        let (said, log) = look(&browser, &folder, &[&scheme]);
        let console: Vec<_> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
        assert!(console.iter().any(|line| line.contains(HEARD)), "{log}");
        assert!(console.iter().all(|line| line.contains(HEARD)), "{name}: {console:#?}");
        let lines: Vec<_> = said.lines().collect();
        let good = format!("drawings {drawings}, scripts 0, background ");
        assert!(
            lines.len() == 2 && lines.iter().all(|line| line.contains(&good)),
            "{name}: {said}"
        );
        lines[0].rsplit("background ").next().unwrap_or_default().to_owned()
    });
    assert_ne!(colours[0], colours[1], "the same in light and dark");
}

fn lab(folder: &Path, args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_vellum-lab")).current_dir(folder).args(args).output().unwrap()
}

#[test]
fn the_command_writes_the_same_page_again_and_from_shards() {
    let dir = tempfile::tempdir().unwrap();
    let asked = ["compare", "--trace", "sqlite3", "--design", "flat,radix4", "--events", "20000"];
    let asked = [&asked[..], &["--part", "runs,tlb"]].concat();
    let page = |extra: &[&str]| {
        let output = lab(dir.path(), &[&asked[..], extra, &["--html", "page.html"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("page: page.html"));
        fs::read_to_string(dir.path().join("page.html")).unwrap()
    };
    let once = page(&["--json", "a.json"]);
    assert_eq!(once, page(&["--json=b.json"]));
    let made = "compare --part tlb --trace sqlite3 --design flat,radix4 --events 20000 --html report.html<";
    assert!(once.contains(made), "{once}");
    // A bar for radix4, none for flat; a line over seven sizes, measured though flat cannot.
    assert_eq!(once.matches("class=\"front\"").count(), 1);
    assert_eq!(once.matches("class=\"dot\"").count(), 7);
    for shard in ["0/2", "1/2"] {
        let json = format!("{}.json", &shard[..1]);
        let output = lab(dir.path(), &[&asked[..], &["--shard", shard, "--json", &json]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let merge = ["compare", "--merge", "1.json", "0.json", "--json", "m.json", "--html", "m.html"];
    assert!(lab(dir.path(), &merge).status.success());
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(read("m.json"), read("a.json"));
    let drawings = |page: &str| page.matches("<svg").count();
    assert_eq!(drawings(&read("m.html")), drawings(&once));
    assert!(read("m.html").contains("compare --merge 1.json 0.json --html report.html<"));
}

#[test]
fn a_page_takes_the_place_of_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("trace.vt"), b"vtrace1\n").unwrap();
    for args in [
        &["--json", "x", "--html", "x"][..],
        &["--trace", "trace.vt", "--html", "trace.vt"],
        &["--html", "no/such/folder"],
        &["--html", "x", "--shard", "0/2"],
        &["--html", "x", "--fits"],
    ] {
        let output = lab(dir.path(), &[&["compare"], args].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{args:?}: {text}");
    }
    assert_eq!(fs::read(dir.path().join("trace.vt")).unwrap(), b"vtrace1\n");
}
