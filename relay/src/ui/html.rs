//! Pieces of HTML that the pages share. Pure.

use std::fmt::{self, Display, Write};

const STYLE: &str = include_str!("page.css");

/// A document's beginning, up to its body.
pub(super) fn head(title: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{}</title><style>{STYLE}</style></head><body>",
        Escaped(title)
    )
}

/// A number with its name above it and a word below.
pub(super) fn tile(html: &mut String, label: impl Display, value: impl Display, detail: impl Display) -> fmt::Result {
    write!(html, "<div><span>{label}</span><b>{value}</b><small>{detail}</small></div>")
}

/// What asks for a host's page.
pub(super) const HOST_FORM: &str = "<form action=\"/host\"><label>Your host: <input name=\"hostname\" \
     placeholder=\"pds.example.com\" autocapitalize=\"none\" autocomplete=\"off\" spellcheck=\"false\" required></label> \
     <button>Look</button></form>";

/// Text as HTML shows it, in an attribute too.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// A number with its thousands apart.
pub(super) struct Grouped(pub(super) u64);

impl Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                f.write_char('\u{202f}')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}
