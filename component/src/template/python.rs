//! What templates expect of Python and of transformers beyond Jinja itself: string and dict methods,
//! `raise_exception`, `strftime_now`, and `tojson` as `json.dumps` writes.

use std::fmt::Write as _;
use std::time::SystemTime;

use jiff::tz::TimeZone;
use minijinja::value::{Kwargs, Value, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State};

use super::meter;

/// Tells the time.
pub(super) type Clock = std::sync::Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// A template's own objection to a conversation.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub(super) String);

/// Adds methods, functions and filters.
pub(super) fn install(environment: &mut Environment<'static>, clock: Clock) {
    environment.set_unknown_method_callback(method);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "the template raised an exception")
            .with_source(Raised(message)))
    });
    environment.add_function("strftime_now", move |format: &str| strftime(clock(), format));
    environment.add_filter("tojson", to_json);
    // To Python a string and a mapping are sequences too, and None cannot be iterated.
    for test in ["iterable", "sequence"] {
        environment.add_test(test, |value: &Value| {
            use ValueKind::{Iterable, Map, Seq, String, Undefined};
            matches!(value.kind(), String | Seq | Map | Iterable | Undefined)
        });
    }
}

/// Methods of Python's types: those of minijinja-contrib, with their results bounded.
fn method(state: &mut State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        meter::charge(state, text.len())?;
        match name {
            "replace" => {
                let (from, to, count): (&str, &str, Option<i64>) = from_args(arguments)?;
                if count.is_none_or(|count| count < 0) {
                    return meter::replace(state, text, from, to).map(Value::from);
                }
                meter::check_text(text.len().saturating_add(text.len().saturating_mul(to.len())))?;
            }
            "join" => {
                let (items,): (&Value,) = from_args(arguments)?;
                return meter::join(items, text, None).map(Value::from);
            }
            "format" => meter::check_format(text)?,
            _ => {}
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments)
}

/// The time in UTC as `datetime.now().strftime` writes it.
fn strftime(now: SystemTime, format: &str) -> Result<String, Error> {
    let wrong = |error: jiff::Error| {
        Error::new(ErrorKind::InvalidOperation, format!("the time cannot be written as {format:?}"))
            .with_source(error)
    };
    meter::check_format(format)?;
    let now = jiff::Timestamp::try_from(now).map_err(wrong)?.to_zoned(TimeZone::UTC);
    jiff::fmt::strtime::format(format, &now).map_err(wrong)
}

/// How `json.dumps` is asked to write.
struct Style {
    ascii: bool,
    sort: bool,
    indent: Option<String>,
    comma: String,
    colon: String,
}

/// `tojson` of transformers: `json.dumps(value, ensure_ascii=False)` and its arguments.
fn to_json(value: &Value, indent: Option<Value>, arguments: Kwargs) -> Result<Value, Error> {
    let ascii = arguments.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sort = arguments.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let indent = match indent.or(arguments.get("indent")?).filter(|indent| !indent.is_none()) {
        Some(indent) => Some(match (indent.as_str(), indent.as_usize()) {
            (Some(text), _) => text.to_owned(),
            (None, Some(width)) if width <= 64 => " ".repeat(width),
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("tojson with an indent of {indent}"),
                ));
            }
        }),
        None => None,
    };
    let (comma, colon) = match arguments.get::<Option<Value>>("separators")?.filter(|pair| !pair.is_none()) {
        Some(pair) => (pair.get_item_by_index(0)?.to_string(), pair.get_item_by_index(1)?.to_string()),
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    arguments.assert_all_used()?;
    let style = Style { ascii, sort, indent, comma, colon };
    let mut into = meter::Bounded::default();
    write_json(&mut into, &style, value, 0)?;
    Ok(Value::from(into.0))
}

/// Writes one value; `level` is how many lists and objects it is in.
fn write_json(into: &mut meter::Bounded, style: &Style, value: &Value, level: usize) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None => into.write_str("null")?,
        ValueKind::Bool => into.write_str(if value.is_true() { "true" } else { "false" })?,
        ValueKind::Number => write_number(into, value)?,
        ValueKind::String => write_string(into, style, value.as_str().unwrap_or_default())?,
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter()?.map(|item| (None, item)).collect();
            write_items(into, style, ('[', ']'), items, level)?;
        }
        ValueKind::Map => {
            let mut items = Vec::new();
            for key in value.try_iter()? {
                let item = value.get_item(&key)?;
                items.push((Some(key_text(&key)?), item));
            }
            if style.sort {
                items.sort_by(|(left, _), (right, _)| left.cmp(right));
            }
            write_items(into, style, ('{', '}'), items, level)?;
        }
        kind => {
            return Err(Error::new(ErrorKind::BadSerialization, format!("{kind} is not JSON serializable")));
        }
    }
    Ok(())
}

fn write_items(
    into: &mut meter::Bounded,
    style: &Style,
    (open, close): (char, char),
    items: Vec<(Option<String>, Value)>,
    level: usize,
) -> Result<(), Error> {
    into.write_char(open)?;
    let new_line = |into: &mut meter::Bounded, level: usize| -> std::fmt::Result {
        let Some(indent) = &style.indent else { return Ok(()) };
        into.write_char('\n')?;
        (0..level).try_for_each(|_| into.write_str(indent))
    };
    let empty = items.is_empty();
    for (index, (key, item)) in items.into_iter().enumerate() {
        if index > 0 {
            into.write_str(&style.comma)?;
        }
        new_line(into, level + 1)?;
        if let Some(key) = key {
            write_string(into, style, &key)?;
            into.write_str(&style.colon)?;
        }
        write_json(into, style, &item, level + 1)?;
    }
    if !empty {
        new_line(into, level)?;
    }
    into.write_char(close)?;
    Ok(())
}

fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::Number => Ok(key.to_string()),
        kind => Err(Error::new(ErrorKind::BadSerialization, format!("{kind} is not a key in JSON"))),
    }
}

/// Numbers as Python's `repr` writes them: floats have a point or an exponent of at least two digits.
fn write_number(into: &mut meter::Bounded, value: &Value) -> Result<(), Error> {
    if value.is_integer() {
        return Ok(write!(into, "{value}")?);
    }
    let number = f64::try_from(value.clone())?;
    if number.is_nan() {
        into.write_str("NaN")?;
    } else if number.is_infinite() {
        into.write_str(if number > 0.0 { "Infinity" } else { "-Infinity" })?;
    } else if number == 0.0 || (1e-4..1e16).contains(&number.abs()) {
        write!(into, "{number:?}")?;
    } else {
        let text = format!("{number:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
        write!(into, "{mantissa}e{sign}{digits:0>2}")?;
    }
    Ok(())
}

fn write_string(into: &mut meter::Bounded, style: &Style, text: &str) -> std::fmt::Result {
    into.write_char('"')?;
    for character in text.chars() {
        match character {
            '"' => into.write_str("\\\"")?,
            '\\' => into.write_str("\\\\")?,
            '\n' => into.write_str("\\n")?,
            '\r' => into.write_str("\\r")?,
            '\t' => into.write_str("\\t")?,
            '\u{8}' => into.write_str("\\b")?,
            '\u{c}' => into.write_str("\\f")?,
            '\0'..='\u{1f}' => write!(into, "\\u{:04x}", u32::from(character))?,
            // Python escapes all but printable ASCII; DEL is printable to it.
            '\u{80}'.. if style.ascii => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(into, "\\u{unit:04x}")?;
                }
            }
            _ => into.write_char(character)?,
        }
    }
    into.write_char('"')
}
