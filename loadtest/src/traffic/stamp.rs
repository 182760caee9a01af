//! When a frame was sent, in the frame: its `time`.
//!
//! A host writes the moment of sending over the `time` of each frame, as a real one says when it committed; a relay
//! passes the field on as it is, and whoever reads the frame subtracts. The envelope is not signed, and the text has
//! a fixed width ([`BYTES`]), so that nothing but these bytes changes. Both ends must have the same clock.

use atproto::{
    cbor::{CborError, Kind, Reader},
    frame::{self, Frame},
};

/// The width of a stamp: `2026-11-22T17:05:00.123456Z`.
pub const BYTES: usize = 27;

/// Where a frame's stamp stands, as an offset in the frame. Walks the payload's keys up to `time`, which come before the
/// blocks. `None` where the frame is no message, or its `time` has another form than a stamp's.
pub fn find(frame: &[u8]) -> Option<usize> {
    let Ok(Frame::Message { body, .. }) = frame::parse(frame) else { return None };
    let at = frame.len() - body.len() + find_in_body(body).ok()??;
    micros_of(frame.get(at..at + BYTES)?)?;
    Some(at)
}

/// Says in the frame that it was sent at `micros` since the Unix epoch. `at` must be from [`find`].
pub fn write(frame: &mut [u8], at: usize, micros: u64) {
    frame[at..at + BYTES].copy_from_slice(&text(micros));
}

/// When a frame was sent, in microseconds since the Unix epoch; `None` where it has no stamp.
pub fn read(frame: &[u8]) -> Option<u64> {
    let at = find(frame)?;
    micros_of(&frame[at..at + BYTES])
}

/// A moment in microseconds since the Unix epoch, as a stamp. The years after 9999 have none: they read as its end.
pub fn text(micros: u64) -> [u8; BYTES] {
    let micros = micros.min(LAST_MICROS);
    let (day, of_day) = (micros / DAY_MICROS, micros % DAY_MICROS);
    let (year, month, day_of_month) = date(day);
    let seconds = of_day / 1_000_000;
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    for (at, width, number) in [
        (0, 4, year),
        (5, 2, month),
        (8, 2, day_of_month),
        (11, 2, seconds / 3_600),
        (14, 2, seconds / 60 % 60),
        (17, 2, seconds % 60),
        (20, 6, of_day % 1_000_000),
    ] {
        let mut left = number;
        for digit in text[at..at + width].iter_mut().rev() {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
    }
    text
}

const DAY_MICROS: u64 = 24 * 3_600 * 1_000_000;
/// The last microsecond of the year 9999.
const LAST_MICROS: u64 = 253_402_300_800 * 1_000_000 - 1;

fn find_in_body(body: &[u8]) -> Result<Option<usize>, CborError> {
    let mut reader = Reader::new(body);
    let mut keys = reader.map()?;
    while let Some(key) = keys.next_key(&mut reader)? {
        if key == "time" && reader.peek()? == Kind::Text {
            let length = reader.text()?.len();
            return Ok(Some(reader.offset() - length));
        }
        reader.skip()?;
    }
    Ok(None)
}

fn micros_of(text: &[u8]) -> Option<u64> {
    let fits = |(byte, form): (&u8, &u8)| if *form == b'0' { byte.is_ascii_digit() } else { byte == form };
    if text.len() != BYTES || !text.iter().zip(b"0000-00-00T00:00:00.000000Z").all(fits) {
        return None;
    }
    let number = |at: usize, width: usize| {
        text[at..at + width].iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
    };
    let (month, day) = (number(5, 2), number(8, 2));
    let (hour, minute, second) = (number(11, 2), number(14, 2), number(17, 2));
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = days(number(0, 4), month, day)? * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(seconds * 1_000_000 + number(20, 6))
}

/// Year, month and day of a day since 1970-01-01. The calendar repeats every 400 years, of 146,097 days; a year that
/// begins in March has its odd day at the end (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn date(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day_of_month)
}

/// The inverse of [`date`]; `None` before 1970.
fn days(year: u64, month: u64, day_of_month: u64) -> Option<u64> {
    let year = year.checked_sub(u64::from(month <= 2))?;
    let (era, of_era) = (year / 400, year % 400);
    let month_from_march = (month + 9) % 12;
    let of_year = (153 * month_from_march + 2) / 5 + day_of_month - 1;
    (era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use atproto::{
        cid::Cid,
        event::{AccountEvent, Action, CommitEvent, Event, RepoOp},
        syntax::Datetime,
    };

    use super::*;

    const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";

    fn commit(time: &str) -> Vec<u8> {
        let cid = Cid::of_cbor(b"x");
        let op = RepoOp { action: Action::Create, path: "app.bsky.feed.post/time", cid: Some(cid), prev: None };
        Event::Commit(CommitEvent {
            seq: 70_000,
            repo: DID,
            time,
            rev: "3k2aaaaaaaa22",
            since: None,
            commit: cid,
            too_big: false,
            rebase: false,
            blocks: &[7; 300],
            ops: vec![op],
            prev_data: None,
        })
        .encode()
    }

    fn account(time: &str) -> Vec<u8> {
        Event::Account(AccountEvent { seq: 1, did: DID, time, active: true, status: None }).encode()
    }

    #[test]
    fn a_stamp_is_the_text_that_a_host_writes() {
        // Every 7th hour of 80 years, and moments around ends of months, years and centuries.
        let hours = (0..80 * 365 * 24 / 7).map(|n| n * 7 * 3_600 * 1_000_000 + n % 1_000_000);
        let ends = [951_782_400, 951_868_800, 1_709_164_800, 4_107_542_400, 4_102_444_800_u64];
        let around = ends.into_iter().flat_map(|second| [second * 1_000_000 - 1, second * 1_000_000]);
        for micros in hours.chain(around) {
            let stamp = text(micros);
            assert_eq!(std::str::from_utf8(&stamp).unwrap(), Datetime::from_micros(micros).as_str());
            assert_eq!(micros_of(&stamp), Some(micros));
        }
        assert_eq!(&text(u64::MAX), b"9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn a_frame_is_stamped_in_place_and_read_again() {
        let before = Datetime::from_micros(1_700_000_000_000_000);
        for mut frame in [commit(before.as_str()), account(before.as_str())] {
            assert_eq!(read(&frame), Some(1_700_000_000_000_000));
            let original = frame.clone();
            let at = find(&frame).unwrap();
            write(&mut frame, at, 1_795_367_100_123_456);
            assert_eq!(read(&frame), Some(1_795_367_100_123_456));
            assert_eq!(frame.len(), original.len());
            assert_eq!((&frame[..at], &frame[at + BYTES..]), (&original[..at], &original[at + BYTES..]));
        }
    }

    #[test]
    fn what_has_another_form_is_no_stamp() {
        for time in [
            "",
            "2026-11-22T17:05:00.123Z",
            "2026-11-22T17:05:00.1234567Z",
            "2026-11-22T17:05:00.123456+",
            "2026-13-22T17:05:00.123456Z",
            "2026-11-00T17:05:00.123456Z",
            "2026-11-22T24:05:00.123456Z",
            "1969-12-31T23:59:59.999999Z",
            "0000-01-01T00:00:00.000000Z",
        ] {
            assert_eq!(find(&commit(time)), None, "{time}");
        }
        let whole = commit("2026-11-22T17:05:00.123456Z");
        for end in 0..whole.len() {
            // Never a panic, and never a place outside.
            if let Some(at) = find(&whole[..end]) {
                assert!(at + BYTES <= end);
            }
        }
        assert_eq!(find(&atproto::frame::encode_error("FutureCursor", None)), None);
    }
}
