//! The commands `tenant` and `key`: what operators ask of the running server, and how its answer is shown.
//!
//! Job: [`ask`] sends one request and collects the rows; [`show`] makes a table of them, or lines of JSON for programs.
//! Invariant: an answer without its end is an error. Must never: open the data folder; only the server that runs on it changes it.

use std::io::BufReader;
use std::path::Path;

use anyhow::{Result, bail};
use serde::Serialize;

use super::{KeyRow, Reply, Request, TenantRow, connect, read_reply, write_line};

/// What came back.
#[derive(Debug, Default)]
pub struct Rows {
    /// Tenants.
    pub tenants: Vec<TenantRow>,
    /// Keys.
    pub keys: Vec<KeyRow>,
}

/// Asks the server that runs on `data_dir`.
///
/// # Errors
/// One sentence: no server runs there, or what it said.
pub fn ask(data_dir: &Path, request: &Request) -> Result<Rows> {
    let Some(stream) = connect(data_dir)? else {
        bail!("no server runs on {}; this command asks the running one", data_dir.display())
    };
    write_line(&stream, request)?;
    let mut stream = BufReader::new(stream);
    let mut rows = Rows::default();
    loop {
        match read_reply(&mut stream)? {
            Reply::Tenant(row) => rows.tenants.push(row),
            Reply::Key(row) => rows.keys.push(row),
            Reply::Done => return Ok(rows),
            Reply::Error(problem) => bail!("{problem}"),
            Reply::Ok(_) | Reply::Page(_) => bail!("the server answered something else"),
        }
    }
}

/// The rows as a table with a line of headings, or as JSON, one object a line.
///
/// # Errors
/// Never, for rows that came from a server.
pub fn show(rows: &Rows, json: bool) -> Result<String> {
    if json {
        let tenants = rows.tenants.iter().map(line);
        return tenants.chain(rows.keys.iter().map(line)).collect();
    }
    let yes_or = |yes: bool, word: &str| if yes { word.to_owned() } else { "active".to_owned() };
    let tenants = rows.tenants.iter().map(|row| {
        let TenantRow { id, name, created_at, suspended, limit, counters, keys } = row.clone();
        [
            id.to_string(),
            name,
            created_at,
            yes_or(suspended, "suspended"),
            limit,
            counters.to_string(),
            keys.to_string(),
        ]
    });
    let never = || "never".to_owned();
    let keys = rows.keys.iter().map(|row| {
        let KeyRow { id, label, scopes, created_at, expires_at, last_used_on } = row.clone();
        [id, scopes, created_at, expires_at.unwrap_or_else(never), last_used_on.unwrap_or_else(never), label]
    });
    if rows.tenants.is_empty() && rows.keys.is_empty() {
        return Ok(String::new());
    }
    Ok(if rows.keys.is_empty() {
        table(["ID", "NAME", "CREATED", "STATE", "LIMIT", "COUNTERS", "KEYS"], tenants.collect())
    } else {
        table(["ID", "SCOPES", "CREATED", "EXPIRES", "LAST USED", "LABEL"], keys.collect())
    })
}

fn line<T: Serialize>(row: &T) -> Result<String> {
    Ok(serde_json::to_string(row)? + "\n")
}

fn table<const N: usize>(headings: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut widths = headings.map(str::len);
    for row in &rows {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = cell.len().max(*width));
    }
    let mut text = String::new();
    for row in std::iter::once(headings.map(str::to_owned)).chain(rows) {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_for_people_and_lines_for_programs() {
        let tenant = |id, name: &str, suspended| TenantRow {
            id,
            name: name.to_owned(),
            created_at: "2026-11-24T09:00:00Z".to_owned(),
            suspended,
            limit: "default".to_owned(),
            counters: 3,
            keys: 1,
        };
        let rows = Rows { tenants: vec![tenant(1, "al", false), tenant(20, "barbara", true)], keys: Vec::new() };
        let shown = "\
ID  NAME     CREATED               STATE      LIMIT    COUNTERS  KEYS
1   al       2026-11-24T09:00:00Z  active     default  3         1
20  barbara  2026-11-24T09:00:00Z  suspended  default  3         1
";
        assert_eq!(show(&rows, false).unwrap(), shown);
        let lines = show(&rows, true).unwrap();
        let first = r#"{"id":1,"name":"al","created_at":"2026-11-24T09:00:00Z","suspended":false,"limit":"default","counters":3,"keys":1}"#;
        assert_eq!((lines.lines().next(), lines.lines().count()), (Some(first), 2));
    }
}
