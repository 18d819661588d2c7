//! The frame of a page, and what stands on it.

use std::fmt::Write;

use crate::report::style::style;

/// Rows of a table of numbers at most.
pub(super) const ROWS: usize = 100;

/// Text as HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A page of `body`, which is HTML, under `title`, which is text.
pub(super) fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n<style>\n{}</style>\n\
         <main>\n<h1>{title}</h1>\n{body}\n</main>\n</html>\n",
        style()
    )
}

/// A table of two columns of text.
pub(super) fn table(rows: &[(String, String)]) -> String {
    let rows: Vec<String> = rows
        .iter()
        .map(|(key, value)| {
            format!("<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escape(key), escape(value))
        })
        .collect();
    format!("<table class=\"words\">{}</table>", rows.join("\n"))
}

/// A chart, what to look for in it, and its numbers as [`numbers`] or [`csv`] gives them.
pub(super) fn figure(chart: &str, caption: &str, numbers: &str) -> String {
    format!(
        "<figure class=\"chart\">{chart}<figcaption>{}</figcaption>{numbers}</figure>\n",
        escape(caption)
    )
}

/// The numbers of a figure, one click away; the first column names the rows.
pub(super) fn numbers(head: &[String], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table: String =
        head.iter().map(|name| format!("<th scope=\"col\">{}</th>", escape(name))).collect();
    for row in rows {
        table += "</tr>\n<tr>";
        for (k, cell) in row.iter().enumerate() {
            let (open, tag) = if k == 0 { ("th scope=\"row\"", "th") } else { ("td", "td") };
            let _ = write!(table, "<{open}>{}</{tag}>", escape(cell));
        }
    }
    format!(
        "<details><summary>The numbers</summary><div class=\"scroll\" tabindex=\"0\" role=\"group\" \
         aria-label=\"The numbers\"><table><tr>{table}</tr></table></div></details>"
    )
}

/// The numbers of a map, one click away, as a file.
pub(super) fn csv(name: &str, rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<String> = rows.map(|row| row.join(",")).collect();
    format!(
        "<p><a download=\"{name}.csv\" href=\"data:text/csv,{}\">The numbers ({name}.csv)</a></p>",
        rows.join("%0A")
    )
}

/// Numbers of `0..n`, [`ROWS`] at most, evenly from the first to the last.
pub(super) fn few(n: usize) -> impl Iterator<Item = usize> {
    let rows = n.min(ROWS);
    (0..rows).map(move |k| if rows < 2 { k } else { k * (n - 1) / (rows - 1) })
}
