//! The documents: what is generated is current, and what is linked is there.
//!
//! Job: the generated parts of `docs/errors.md` and `docs/configuration.md` are what the code's
//! tables say; the table of metrics and that of the tests' variables have exactly what the code
//! has; the functions that the architecture names are there;
//! every relative link and anchor of every Markdown file leads somewhere; README stays short.
//! Invariant: a generated part stands between two comments that name it, and everything outside of
//! them is written by hand.
//! Must never: change what it compares, unless it is told to (`ODOMETER_BLESS=1`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{say, setting};
use odometer::config::{SETTINGS, Setting};
use odometer::http::error_reference::{ErrorReference, error_reference};
use odometer::telemetry::names_and_types;

const README_LINES: usize = 220;
const COLUMNS: usize = 100;

#[test]
fn the_errors_are_those_of_the_code() {
    assert_generated("docs/errors.md", "errors", &errors());
}

#[test]
fn the_settings_are_those_of_the_code() {
    assert_generated("docs/configuration.md", "settings", &settings());
}

#[test]
fn the_table_of_metrics_has_each_metric_with_its_type() {
    let defined: BTreeSet<(String, String)> =
        names_and_types().map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect();
    let page = read(&root().join("docs/monitoring.md"));
    let (_, table) = page.split_once("| metric | type | meaning |").expect("the table of metrics");
    let documented: Vec<(String, String)> = rows(table)
        .map(|cells| {
            let name = cells[0].split('{').next().unwrap_or_default();
            (name.trim_matches('`').to_owned(), cells[1].to_owned())
        })
        // These are defined by the crate that measures them.
        .filter(|(name, _)| name != "process_*")
        .collect();
    assert_same(&documented, &defined, "docs/monitoring.md", "src/telemetry/definitions.rs");
}

#[test]
fn the_table_of_variables_has_each_variable_of_the_tests() {
    let mut read_by_tests = BTreeSet::new();
    let mut files = Vec::new();
    collect_files(&root().join("tests"), "rs", &mut files);
    for file in files {
        // `support::setting` is where the tests read their environment.
        let text = read(&file);
        let arguments = text.split("setting(").skip(1).map(str::trim_start);
        let names = arguments.filter_map(|rest| rest.strip_prefix('"')?.split('"').next());
        read_by_tests.extend(names.filter(|name| name.starts_with("ODOMETER_")).map(str::to_owned));
    }
    let page = read(&root().join("docs/testing.md"));
    let (_, table) = page.split_once("| variable | default | meaning |").expect("the table");
    let documented: Vec<String> =
        rows(table).map(|cells| cells[0].trim_matches('`').to_owned()).collect();
    assert_same(&documented, &read_by_tests, "docs/testing.md", "tests/");
}

#[test]
fn each_function_that_decides_is_where_the_table_says() {
    let page = read(&root().join("docs/architecture.md"));
    let (_, table) = page.split_once("| question | decided by |").expect("the table");
    let mut wrong = Vec::new();
    let mut functions = 0;
    for cells in rows(table) {
        let mut source = None;
        for code in cells[1].split('`').skip(1).step_by(2) {
            if code.ends_with(".rs") {
                let file = root().join("src").join(code.replace("E/", "store/embedded/"));
                source = Some(read(&file));
                continue;
            }
            functions += 1;
            let name = code.rsplit("::").next().unwrap_or_default();
            let is_there = source.as_ref().is_some_and(|text: &String| {
                [format!("fn {name}("), format!("fn {name}<")]
                    .iter()
                    .any(|start| text.contains(start))
            });
            if !is_there {
                wrong.push(format!("{}: {code}", cells[0]));
            }
        }
    }
    assert!(functions > 15 && wrong.is_empty(), "of {functions}: {wrong:?}");
}

/// The cells of the rows of a Markdown table whose heading ends where `after_heading` begins.
fn rows(after_heading: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = after_heading.trim_start().lines().skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect())
}

/// Compares a table with what the code has, both ways; the table has each row once.
fn assert_same<T: Ord + Clone + std::fmt::Debug>(
    documented: &[T],
    of_the_code: &BTreeSet<T>,
    page: &str,
    code: &str,
) {
    let table: BTreeSet<T> = documented.iter().cloned().collect();
    assert!(of_the_code.len() > 20, "{code} has only {of_the_code:?}");
    let missing: Vec<_> = of_the_code.difference(&table).collect();
    let unknown: Vec<_> = table.difference(of_the_code).collect();
    assert!(
        missing.is_empty() && unknown.is_empty() && table.len() == documented.len(),
        "{page} lacks {missing:?}; {code} lacks {unknown:?}; a row may be there twice"
    );
}

#[test]
fn readme_is_short() {
    let lines = read(&root().join("README.md")).lines().count();
    assert!(
        lines <= README_LINES,
        "README.md has {lines} lines of {README_LINES}: move some into docs/"
    );
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut files = Vec::new();
    collect_files(&root(), "md", &mut files);
    assert!(files.len() > 20, "only {files:?}");
    let pages: BTreeMap<PathBuf, Page> =
        files.into_iter().map(|path| (path.clone(), Page::parse(&read(&path)))).collect();
    let links = pages.values().map(|page| page.links.len()).sum::<usize>();
    assert!(links > 100, "only {links} links were found");
    let dead: Vec<String> = pages
        .iter()
        .flat_map(|(path, page)| page.links.iter().map(move |link| (path, link)))
        .filter_map(|(path, link)| {
            let problem = problem_of(path, link, &pages)?;
            let shown = path.strip_prefix(root()).unwrap_or(path).display();
            Some(format!("{shown}: ({link}) {problem}"))
        })
        .collect();
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}

/// The part of `docs/errors.md` that comes from the table of errors: an index by status, and a
/// section for each code.
fn errors() -> String {
    let rows = error_reference();
    let mut by_status: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    let mut by_code: Vec<(&str, Vec<&ErrorReference>)> = Vec::new();
    for row in &rows {
        by_status.entry(row.spec.status.as_u16()).or_default().push(row.spec.code);
        match by_code.iter_mut().find(|(code, _)| *code == row.spec.code) {
            Some((_, same)) => same.push(row),
            None => by_code.push((row.spec.code, vec![row])),
        }
    }
    let mut page = String::from("| status | codes |\n|---|---|\n");
    for (status, codes) in &by_status {
        let links: Vec<String> = codes.iter().map(|code| format!("[`{code}`](#{code})")).collect();
        let _ = writeln!(page, "| {status} | {} |", links.join(", "));
    }
    for (code, same) in &by_code {
        let _ = write!(page, "\n### `{code}`\n");
        for row in same {
            let ErrorReference { spec, meaning, retry, retry_after } = row;
            let meaning = format!("**{} {}.** {meaning}", spec.status.as_u16(), spec.title);
            let wait = retry_after.map(|wait| format!(" `Retry-After: {}`.", wait.as_secs()));
            let retry = format!("Retry: {retry}.{}", wait.unwrap_or_default());
            let _ = write!(page, "\n{}\n\n{}\n", wrap(&meaning), wrap(&retry));
        }
    }
    page
}

/// The part of `docs/configuration.md` that comes from the table of settings.
fn settings() -> String {
    let mut page = String::new();
    let mut heading = "";
    for setting in SETTINGS {
        if setting.heading != heading {
            heading = setting.heading;
            let gap = if page.is_empty() { "" } else { "\n" };
            let _ = write!(page, "{gap}### {heading}\n\n");
            page.push_str("| flag | environment | default | meaning |\n|---|---|---|---|\n");
        }
        let Setting { name, help, .. } = setting;
        let default = if setting.default.is_empty() {
            "none".to_owned()
        } else {
            format!("`{}`", setting.default)
        };
        let help = help.replace('|', "\\|").replace('<', "&lt;");
        let _ = writeln!(page, "| `--{name}` | `{}` | {default} | {help}. |", setting.env_name());
    }
    page
}

/// The same words in lines of at most [`COLUMNS`].
fn wrap(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is a line");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= COLUMNS {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n")
}

/// Compares the part of `page` between its two comments with what was generated, or writes it.
fn assert_generated(page: &str, part: &str, generated: &str) {
    let path = root().join(page);
    let committed = read(&path);
    let (begin, end) =
        (format!("<!-- BEGIN GENERATED {part}"), format!("<!-- END GENERATED {part} -->"));
    let (before, rest) =
        committed.split_once(&begin).unwrap_or_else(|| panic!("{page} has no {begin}"));
    let (comment, rest) = rest.split_once("-->\n").expect("the comment ends");
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{page} has no {end}"));
    let made = format!("{before}{begin}{comment}-->\n\n{generated}\n{end}{after}");
    if setting("ODOMETER_BLESS").as_deref() == Some("1") {
        fs::write(&path, &made).expect("the page can be written");
        say(&format!("{page} was written"));
    }
    let hint = format!(
        "{page} is not what the code makes: run ODOMETER_BLESS=1 cargo test --test repository, and commit it"
    );
    assert!(read(&path) == made, "{hint}");
}

/// What links and anchors a Markdown file has.
struct Page {
    anchors: BTreeSet<String>,
    links: Vec<String>,
}

impl Page {
    fn parse(text: &str) -> Self {
        let mut page = Self { anchors: BTreeSet::new(), links: Vec::new() };
        let mut prose = String::new();
        let mut fence = None;
        for line in text.lines() {
            let mark = ["```", "~~~"].into_iter().find(|mark| line.trim_start().starts_with(mark));
            match (fence, mark) {
                (None, Some(mark)) => fence = Some(mark),
                (Some(open), Some(mark)) if open == mark => fence = None,
                (None, None) => {
                    if let Some(heading) = line.trim_start_matches('#').strip_prefix(' ')
                        && line.starts_with('#')
                    {
                        page.add_anchor(heading);
                    }
                    // A reference, `[name]: target`.
                    if let Some((_, target)) =
                        line.split_once("]: ").filter(|_| line.starts_with('['))
                    {
                        page.links.push(target.trim().to_owned());
                    }
                    prose.push_str(line);
                    prose.push('\n');
                }
                _ => {}
            }
        }
        // A link's text may stand on two lines, and in inline code nothing is a link.
        let uncoded: String = prose.split('`').step_by(2).collect();
        for rest in uncoded.split("](").skip(1) {
            page.links.extend(rest.split_once(')').map(|(target, _)| target.to_owned()));
        }
        page
    }

    /// Adds the anchor that GitHub gives a heading.
    fn add_anchor(&mut self, heading: &str) {
        // Of a link only its text counts.
        let mut text = String::new();
        let mut rest = heading;
        while let Some((before, after)) = rest.split_once("](") {
            text.push_str(before);
            rest = after.split_once(')').map_or("", |(_, behind)| behind);
        }
        text.push_str(rest);
        let slug: String = text
            .trim()
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() })
            .collect();
        let numbered = (1..).map(|n| format!("{slug}-{n}"));
        let mut names = std::iter::once(slug.clone()).chain(numbered);
        self.anchors.extend(names.find(|name| !self.anchors.contains(name)));
    }
}

/// Why a link leads nowhere, if it does.
fn problem_of(from: &Path, link: &str, pages: &BTreeMap<PathBuf, Page>) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) =
        link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
    let folder = from.parent().unwrap_or(from);
    let target = if file.is_empty() { from.to_owned() } else { folder.join(file) };
    let Ok(target) = target.canonicalize() else { return Some("is not there".to_owned()) };
    if !target.starts_with(root()) {
        return Some("leads out of the repository".to_owned());
    }
    let anchor = anchor?;
    let Some(page) = pages.get(&target) else { return Some("is no page with anchors".to_owned()) };
    (!page.anchors.contains(anchor)).then(|| "has no such heading".to_owned())
}

fn collect_files(folder: &Path, extension: &str, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && !["target", "data"].contains(&name.as_str()) {
            collect_files(&path, extension, files);
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().expect("the repository is there")
}
