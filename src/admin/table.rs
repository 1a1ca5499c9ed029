//! The formatting of rows.
//!
//! Job: [`render`] formats them as a table, or as lines of JSON for programs.
//! Invariant: JSON has the fields in the order in which the server sent them.
//! Must never: print; the caller does.

use anyhow::Result;
use serde::Serialize;

use super::commands::Rows;
use super::rows::{KeyRow, TenantRow};

/// Formats the rows as a table with headings, or as JSON, one object per line.
///
/// # Errors
/// A row cannot be serialized; that does not happen to rows that a server sent.
pub fn render(rows: &Rows, json: bool) -> Result<String> {
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
        [
            id,
            scopes,
            created_at,
            expires_at.unwrap_or_else(never),
            last_used_on.unwrap_or_else(never),
            label,
        ]
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
    let mut table = String::new();
    for row in std::iter::once(headings.map(str::to_owned)).chain(rows) {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        table.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        table.push('\n');
    }
    table
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
        let rows = Rows {
            tenants: vec![tenant(1, "al", false), tenant(20, "barbara", true)],
            keys: Vec::new(),
        };
        let expected = "\
ID  NAME     CREATED               STATE      LIMIT    COUNTERS  KEYS
1   al       2026-11-24T09:00:00Z  active     default  3         1
20  barbara  2026-11-24T09:00:00Z  suspended  default  3         1
";
        assert_eq!(render(&rows, false).unwrap(), expected);
        let lines = render(&rows, true).unwrap();
        let first = r#"{"id":1,"name":"al","created_at":"2026-11-24T09:00:00Z","suspended":false,"#
            .to_owned()
            + r#""limit":"default","counters":3,"keys":1}"#;
        assert_eq!((lines.lines().next(), lines.lines().count()), (Some(&*first), 2));
    }
}
