//! The HTML report in a real browser: it renders, sorts, filters and pages, runs no text of the data, and loads nothing.
//!
//! Where no Chromium is found, the tests say so and pass.

mod fixture;

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fixture::{flips, full, minimal, nasty};
use lowchurn_churn::{Report, html};
use serde_json::{Value, json};

fn chromium() -> Option<PathBuf> {
    let named = env::var_os("CHROMIUM").map(PathBuf::from);
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let folders: Vec<PathBuf> =
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    let found = folders
        .iter()
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|path| path.is_file());
    let found = named.or(found);
    if found.is_none() {
        let _ = writeln!(io::stderr(), "skipped: no chromium");
    }
    found
}

/// Standard output and error of a browser that opened a page and waited until its scripts were done.
fn open(browser: &Path, page: &Path, arguments: &[&str]) -> (String, String) {
    let profile = tempfile::tempdir().unwrap();
    let done = Command::new(browser)
        .args([
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--virtual-time-budget=8000",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(arguments)
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    (
        String::from_utf8_lossy(&done.stdout).into_owned(),
        String::from_utf8_lossy(&done.stderr).into_owned(),
    )
}

/// Hears errors before the page's own script runs.
const EARS: &str = "<script>
window.heard = [];
window.addEventListener('error', (event) => heard.push('error: ' + (event.message || event.target.outerHTML)), true);
window.addEventListener('unhandledrejection', (event) => heard.push('rejection: ' + event.reason));
for (const level of ['error', 'warn']) console[level] = (...parts) => heard.push(level + ': ' + parts.join(' '));
</script>";

/// Helpers for what a person does; `check` holds what a test wants to know.
const HANDS: &str = "
const $ = (selector) => document.querySelector(selector);
const rows = () => Array.from($('#flip-table').tBodies[0].rows);
const seen = () => rows().filter((row) => !row.hidden);
const column = (n) => seen().map((row) => row.cells[n].textContent.trim());
const click = (selector) => { const found = $(selector); found.focus(); found.click(); };
const put = (selector, value) => { const found = $(selector); found.value = value; found.dispatchEvent(new Event('input', { bubbles: true })); };
const count = () => $('#flip-count').textContent;
const head = (n) => $('#flip-table').tHead.rows[0].cells[n];
const sort = (n) => head(n).querySelector('button').click();
const check = {};
";

/// What a script found in the page, run after the page's own. The page's policy is taken away, or the script couldn't run:
/// so the escapes stand alone here, without the net below them.
fn ask(browser: &Path, report: &Report, script: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    let page = html(report);
    let policy = page.find("<meta http-equiv").unwrap();
    let end = policy + page[policy..].find('>').unwrap() + 1;
    let tail = format!(
        "<script>{{{HANDS}\ntry {{ {script} }} catch (error) {{ heard.push('test: ' + error); }}
        const out = document.createElement('pre');
        out.id = 'answer';
        out.textContent = encodeURIComponent(JSON.stringify({{ check, heard, broken: window.broken ?? null }}));
        document.body.append(out); }}</script></body>"
    );
    let page = format!("{}{EARS}{}", &page[..policy], page[end..].replacen("</body>", &tail, 1));
    fs::write(&path, page).unwrap();
    let (dom, log) = open(browser, &path, &["--dump-dom"]);
    let answer =
        dom.rsplit("<pre id=\"answer\">").next().and_then(|rest| rest.split("</pre>").next());
    let answer = answer
        .filter(|_| dom.contains("<pre id=\"answer\">"))
        .unwrap_or_else(|| panic!("no answer\n{log}"));
    serde_json::from_str(&decoded(answer)).unwrap()
}

/// Back from `encodeURIComponent`.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let (byte, tail) = match first {
            b'%' => {
                (u8::from_str_radix(str::from_utf8(&tail[..2]).unwrap(), 16).unwrap(), &tail[2..])
            }
            byte => (*byte, tail),
        };
        bytes.push(byte);
        rest = tail;
    }
    String::from_utf8(bytes).unwrap()
}

fn is_quiet(answer: &Value) {
    assert_eq!(answer["heard"], json!([]));
    assert_eq!(answer["broken"], Value::Null);
}

#[test]
fn sorts_and_filters_and_pages() {
    let Some(browser) = chromium() else { return };
    let script = "
        check.controls = !$('.controls').hidden;
        check.start = [count(), seen().length, column(0)[0]];
        sort(4); check.highest = column(4).slice(0, 3); check.down = head(4).getAttribute('aria-sort');
        sort(4); check.lowest = column(4).slice(0, 3); check.up = head(4).getAttribute('aria-sort');
        sort(2); check.labels = column(2).slice(0, 2); check.other = head(4).getAttribute('aria-sort');
        click('[data-more=all]'); check.last = [seen().length, column(2).at(-1), $('.more').hidden];
        put('#flip-search', 'bag DALLAS'); check.search = [count(), seen().every((row) => row.textContent.includes('Dallas'))];
        put('#flip-kind', 'positive'); check.kind = [count(), [...new Set(column(0))]];
        put('#flip-search', 'tarmac forever'); check.nearest = count();
        put('#flip-search', ''); put('#flip-old', 'neutral'); put('#flip-new', 'negative');
        check.fromTo = [count(), [...new Set(column(3))], [...new Set(column(5))]];
        put('#flip-search', 'no such text'); check.none = [count(), seen().length];
        for (const id of ['search', 'kind', 'old', 'new']) put('#flip-' + id, '');
        check.again = count();
        check.kinds = rows().map((row) => row.dataset.kind).reduce((all, kind) => ({ ...all, [kind]: (all[kind] || 0) + 1 }), {});
        const slices = $('#slices table');
        slices.tHead.rows[0].cells[0].querySelector('button').click();
        check.slices = Array.from(slices.tBodies[0].rows, (row) => row.cells[0].textContent);
    ";
    let mut report = full();
    report.flips = flips(170);
    report.n_flips = 170;
    let scores: Vec<f64> = {
        let mut scores: Vec<f64> = report.flips.iter().filter_map(|flip| flip.old_score).collect();
        scores.sort_by(f64::total_cmp);
        scores
    };
    let shown = |scores: &[f64]| {
        json!(scores.iter().map(|score| format!("{score:.3}")).collect::<Vec<_>>())
    };
    let highest: Vec<f64> = scores.iter().rev().copied().take(3).collect();
    let of = |keep: &dyn Fn(&lowchurn_churn::Flip) -> bool| {
        report.flips.iter().filter(|flip| keep(flip)).count()
    };
    let dallas = of(&|flip| flip.text.as_deref().is_some_and(|text| text.contains("Dallas")));
    let moved = of(&|flip| {
        flip.kind == lowchurn_churn::FlipKind::Positive
            && flip.old == "neutral"
            && flip.new == "negative"
    });
    let answer = ask(&browser, &report, script);
    is_quiet(&answer);
    let check = &answer["check"];
    assert_eq!(check["controls"], json!(true));
    assert_eq!(check["start"], json!(["20 of 170 rows shown", 20, "negative"]));
    assert_eq!(check["highest"], shown(&highest));
    assert_eq!(check["lowest"], shown(&scores[..3]));
    assert_eq!(
        [&check["down"], &check["up"], &check["other"]],
        ["descending", "ascending", "none"]
    );
    assert_eq!(check["labels"], json!(["negative", "negative"]));
    assert_eq!(check["last"], json!([170, "–", true]), "rows without a true label are last");
    assert_eq!(check["search"], json!([format!("20 of {dallas} rows shown, 170 in all"), true]));
    assert_eq!(check["kind"][1], json!(["positive"]));
    assert_eq!(check["nearest"], json!("No row matches. Clear the search or a filter."));
    assert_eq!(
        check["fromTo"],
        json!([format!("{moved} of {moved} rows shown, 170 in all"), ["neutral"], ["negative"]])
    );
    assert_eq!(check["none"], json!(["No row matches. Clear the search or a filter.", 0]));
    assert_eq!(check["again"], json!("20 of 170 rows shown"));
    assert_eq!(
        check["kinds"],
        json!({"negative": 41, "lateral": 14, "positive": 108, "no label": 7})
    );
    let names = ["Delta", "United", "Virgin America"].map(|name| format!("airline = {name}"));
    assert_eq!(check["slices"].as_array().unwrap()[..3], names.map(|name| json!(name)));
}

#[test]
fn texts_of_the_data_stay_texts() {
    let Some(browser) = chromium() else { return };
    let script = "
        check.title = document.title;
        check.made = document.querySelectorAll('img, iframe, h1 ~ h1, [onload], [onerror], a[href^=javascript]').length;
        check.heads = document.querySelectorAll('h1').length;
        check.first = $('#flip-table tbody .text').textContent.length;
        const texts = Array.from(document.querySelectorAll('#flip-table p.text'), (text) => text.textContent);
        check.script = texts.some((text) => text === \"<script>window.broken = 1; throw 'in'</scr\" + 'ipt>');
        check.lines = texts.some((text) => text.includes('line one\\nline two'));
        check.options = $('#flip-old').options.length;
        put('#flip-old', $('#flip-old').options[2].value);
        check.filtered = [seen().length > 0, seen().every((row) => row.dataset.old === $('#flip-old').value)];
        check.wide = document.documentElement.scrollWidth <= window.innerWidth;
        check.rows = rows().every((row) => row.cells.length === 7);
    ";
    let answer = ask(&browser, &nasty(), script);
    is_quiet(&answer);
    let expected = json!({
        "title": "<script>window.broken = 1; throw 'in'</script>", "made": 0, "heads": 1, "first": 320, "script": true,
        "lines": true, "options": 9, "filtered": [true, true], "wide": true, "rows": true
    });
    assert_eq!(answer["check"], expected);
}

/// Two thousand rows are what a page holds at most.
#[test]
fn the_largest_table_answers_at_once() {
    let Some(browser) = chromium() else { return };
    let script = "
        const time = (work) => { const start = performance.now(); work(); document.body.offsetHeight; return performance.now() - start; };
        click('[data-more=all]');
        check.all = seen().length;
        check.sort = time(() => sort(6));
        check.filter = time(() => put('#flip-search', 'gate'));
        check.found = seen().length;
    ";
    let mut report = full();
    report.flips = flips(2_500);
    report.n_flips = 2_500;
    let start = Instant::now();
    let answer = ask(&browser, &report, script);
    is_quiet(&answer);
    let check = &answer["check"];
    assert_eq!(check["all"], json!(2_000));
    let [sort, filter] = ["sort", "filter"].map(|what| check[what].as_f64().unwrap());
    // Loose, for slow machines under load: a frozen page takes many seconds.
    assert!(sort < 5_000.0 && filter < 5_000.0 && start.elapsed() < Duration::from_secs(60));
}

/// As it is given away: with its policy, which the browser would complain about on its log.
#[test]
fn the_page_as_it_is_makes_no_complaint() {
    let Some(browser) = chromium() else { return };
    for (name, report) in [("full", full()), ("minimal", minimal()), ("nasty", nasty())] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.html");
        fs::write(&path, html(&report)).unwrap();
        let (dom, log) = open(&browser, &path, &["--dump-dom"]);
        let complaints: Vec<&str> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
        assert!(complaints.is_empty(), "{name}: {complaints:?}");
        let has_run = dom.contains("aria-sort=\"none\"");
        assert_eq!(
            has_run,
            name != "minimal",
            "{name}: the script sorts tables where there are such"
        );
    }
}

/// The net itself: a page with a script that isn't ours in it doesn't run that script.
#[test]
fn the_policy_stops_other_scripts() {
    let Some(browser) = chromium() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    let page =
        html(&minimal()).replace("</main>", "<script>document.title = 'taken'</script></main>");
    fs::write(&path, page).unwrap();
    let (dom, log) = open(&browser, &path, &["--dump-dom"]);
    assert!(dom.contains("<title>a.csv and b.csv</title>"), "{dom}");
    assert!(
        log.lines()
            .any(|line| line.contains("CONSOLE") && line.contains("Content Security Policy"))
    );
}

#[test]
fn dark_and_narrow_and_printed_it_renders() {
    let Some(browser) = chromium() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    fs::write(&path, html(&full())).unwrap();
    let size_of = |file: &str, arguments: &[&str]| {
        let out = folder.path().join(file);
        let flag = if file.ends_with("pdf") { "--print-to-pdf" } else { "--screenshot" };
        let mut all = vec![format!("{flag}={}", out.display())];
        all.extend(arguments.iter().map(|argument| argument.to_string()));
        open(&browser, &path, &all.iter().map(String::as_str).collect::<Vec<_>>());
        fs::metadata(&out).map_or(0, |data| data.len())
    };
    assert!(size_of("light.png", &["--window-size=1280,3000"]) > 50_000);
    assert!(
        size_of(
            "dark.png",
            &["--window-size=1280,3000", "--blink-settings=preferredColorScheme=0"]
        ) > 50_000
    );
    assert!(size_of("narrow.png", &["--window-size=500,3000"]) > 30_000);
    assert!(size_of("paper.pdf", &[]) > 30_000);
}
