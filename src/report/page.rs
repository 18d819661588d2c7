//! The frame of a page.

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
         <link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n<style>\n\
         body {{ font: 15px/1.5 sans-serif; color: #222; background: #fff; max-width: 1080px; \
         margin: 2em auto; padding: 0 1em }}\n\
         h1 {{ font-size: 1.6em }} h2 {{ font-size: 1.2em; margin-top: 2em }}\n\
         table {{ border-collapse: collapse }} td, th {{ text-align: left; padding: .2em 1em .2em 0; \
         vertical-align: top }}\n\
         pre {{ background: #f4f4f4; padding: 1em; overflow-x: auto }}\n\
         img {{ image-rendering: pixelated; max-width: 100% }}\n\
         figure {{ display: inline-block; margin: .4em 1em .4em 0 }} \
         figcaption {{ font-size: .85em; color: #555 }}\n\
         .pair {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); \
         gap: 1em }}\n\
         .note {{ color: #555 }}\n</style>\n<h1>{title}</h1>\n{body}\n</html>\n"
    )
}

/// A table of two columns of text.
pub(super) fn table(rows: &[(String, String)]) -> String {
    let rows: Vec<String> = rows
        .iter()
        .map(|(key, value)| format!("<tr><th>{}</th><td>{}</td></tr>", escape(key), escape(value)))
        .collect();
    format!("<table>{}</table>", rows.join("\n"))
}
