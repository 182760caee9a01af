use std::fmt;

use super::SyntaxError;

/// An RFC 3339 datetime as the Lexicon specification narrows it, such as `2026-11-22T08:53:09.160Z`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Datetime(Box<str>);

const DATETIME_BYTES_MAX: usize = 64;

impl Datetime {
    /// Parses and keeps the text.
    pub fn parse(text: &str) -> Result<Datetime, SyntaxError> {
        Self::check(text)?;
        Ok(Datetime(Box::from(text)))
    }

    /// Checks the grammar without making a value.
    pub fn check(text: &str) -> Result<(), SyntaxError> {
        let invalid = |why| SyntaxError { what: "datetime", why };
        if text.len() > DATETIME_BYTES_MAX {
            return Err(invalid("longer than 64 bytes"));
        }
        // `d` stands for any digit; the rest stands for itself.
        const LOCAL: &[u8; 19] = b"dddd-dd-ddTdd:dd:dd";
        let (local, rest) =
            text.as_bytes().split_first_chunk::<19>().ok_or(invalid("not YYYY-MM-DDTHH:MM:SS and a zone"))?;
        if !matches(local, LOCAL) {
            return Err(invalid("not YYYY-MM-DDTHH:MM:SS and a zone"));
        }
        let zone = match rest {
            [b'.', fraction @ ..] => {
                let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
                if !(1..=20).contains(&digits) {
                    return Err(invalid("a fraction that is not 1 to 20 digits"));
                }
                &fraction[digits..]
            }
            _ => rest,
        };

        let [year, month, day] = [number(&local[..4]), number(&local[5..7]), number(&local[8..10])];
        let [hour, minute, second] = [number(&local[11..13]), number(&local[14..16]), number(&local[17..])];
        if jiff::civil::Date::new(year, month as i8, day as i8).is_err() {
            return Err(invalid("a day that is in no calendar"));
        }
        if hour > 23 || minute > 59 || second > 59 {
            return Err(invalid("a time that is on no clock"));
        }
        let offset_minutes = match zone {
            b"Z" => 0,
            b"-00:00" => return Err(invalid("the zone -00:00")),
            [sign @ (b'+' | b'-'), offset @ ..] if matches(offset, b"dd:dd") => {
                let [hours, minutes] = [number(&offset[..2]), number(&offset[3..])];
                if hours > 23 || minutes > 59 {
                    return Err(invalid("a zone that is nowhere"));
                }
                (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
            }
            _ => return Err(invalid("no zone: Z or an offset")),
        };
        if [year, month, day] == [0, 1, 1] && hour * 60 + minute < offset_minutes {
            return Err(invalid("a moment before the year 0"));
        }
        Ok(())
    }

    /// A moment in microseconds since the Unix epoch, as `2026-11-22T08:53:09.160123Z`. One after the year 9999 reads as
    /// 1970, which has no other form here.
    pub fn from_micros(micros: u64) -> Datetime {
        let time = i64::try_from(micros).ok().and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok());
        Datetime(format!("{:.6}", time.unwrap_or(jiff::Timestamp::UNIX_EPOCH)).into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Datetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn matches(text: &[u8], pattern: &[u8]) -> bool {
    text.len() == pattern.len()
        && text.iter().zip(pattern).all(|(b, p)| if *p == b'd' { b.is_ascii_digit() } else { b == p })
}

/// The number that up to four digits spell.
fn number(digits: &[u8]) -> i16 {
    digits.iter().fold(0, |number, digit| number * 10 + i16::from(digit - b'0'))
}
