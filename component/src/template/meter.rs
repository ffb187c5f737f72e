//! What a template may cost, in time and memory.
//!
//! minijinja counts instructions (fuel) and limits recursion, but not what an instruction makes: a string
//! that is joined to itself forty times takes forty instructions and a terabyte. So the compiled code is
//! rewritten: behind everything that makes a value goes a filter that charges the value's size to a budget,
//! and that refuses values which are too large or too deep. Raw text is emitted as a value, so that a loop
//! over it inside a captured block counts as well. One instruction can at most add or repeat values that
//! already passed, so nothing grows far before it is seen; what multiplies its inputs (`*`, `replace`,
//! `join`, `indent`, `format`) is checked before it runs.
//!
//! This needs minijinja's `unstable_machinery`; the version is pinned for it.

use minijinja::machinery::{Instruction, Instructions};
use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, filters};

/// Bytes of a single string, and of the output.
pub(super) const MAX_TEXT: usize = 8 << 20;
/// Instructions of one rendering.
const FUEL: u64 = 4_000_000;
/// Bytes of all values made in one rendering together, whether or not they live to its end.
const MAX_MADE: usize = 256 << 20;
/// minijinja's measure of nesting, in which a macro counts as ten. What is within it fits 512 KiB of stack.
const MAX_RECURSION: usize = 320;
/// Lists and maps inside each other.
const MAX_DEPTH: usize = 64;
/// What an element of a list costs: its memory, and the time to look at it.
pub(super) const ELEMENT: usize = 128;
/// Columns and rows that may be asked for: of padding, indentation, batches.
const MAX_WIDTH: usize = 10_000;

/// Charges a value and hands it on.
const MADE: &str = "+made";
/// The same for a value that a namespace will hold, which may not be a namespace: it could hold itself.
const STORED: &str = "+stored";
/// `*`, checked first.
const TIMES: &str = "+times";
/// Says that a filter has no slot in the interpreter's cache.
const UNCACHED: u8 = u8::MAX;

/// What a rendering has made so far.
#[derive(Debug, Default)]
struct Made(usize);

/// Sets the limits and the filters that metered code uses.
pub(super) fn install(environment: &mut Environment<'static>) {
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(MAX_RECURSION);
    environment.set_formatter(|out, state, value| {
        if let Some(text) = value.as_str() {
            check_text(text.len())?;
            charge(state, text.len())?;
            return Ok(out.write_str(text)?);
        }
        let text = bounded(|into| std::fmt::write(into, format_args!("{value}")))?;
        charge(state, text.len())?;
        Ok(out.write_str(&text)?)
    });
    environment.add_filter(MADE, |state: &mut State, value: &Value| made(state, value, true));
    environment.add_filter(STORED, |state: &mut State, value: &Value| made(state, value, false));
    environment.add_filter(TIMES, times);
    environment.add_filter("replace", |state: &mut State, value: &str, from: &str, to: &str| {
        replace(state, value, from, to)
    });
    environment.add_filter(
        "join",
        |value: &Value, joiner: Option<&str>, attribute: Option<&str>, named: Kwargs| {
            let joiner = joiner.or(named.get("d")?).unwrap_or_default();
            let attribute = attribute.or(named.get("attribute")?);
            named.assert_all_used()?;
            join(value, joiner, attribute)
        },
    );
    environment.add_filter("indent", indent);
    environment.add_filter("format", |state: &mut State, format: &Value, arguments: Rest<ValueOrKwargs>| {
        check_format(format.as_str().unwrap_or_default())?;
        filters::format(state, format, arguments)
    });
    environment.add_filter("batch", |state: &State, value: Value, count: usize, fill: Option<Value>| {
        check_width(count)?;
        filters::batch(state, value, count, fill)
    });
    environment.add_filter("slice", |state: &State, value: Value, count: usize, fill: Option<Value>| {
        check_width(count)?;
        filters::slice(state, value, count, fill)
    });
}

/// Rewrites compiled code so that what it makes is charged.
pub(super) fn metered<'source>(code: &Instructions<'source>) -> Instructions<'source> {
    let filter = |name, arguments| Instruction::ApplyFilter(name, Some(arguments), UNCACHED);
    let rewrite = |instruction: &Instruction<'source>| -> Vec<Instruction<'source>> {
        let same = instruction.clone();
        match instruction {
            Instruction::EmitRaw(text) => vec![Instruction::LoadConst(Value::from(*text)), Instruction::Emit],
            Instruction::Mul => vec![filter(TIMES, 2), filter(MADE, 1)],
            Instruction::SetAttr(_) => vec![Instruction::Swap, filter(STORED, 1), Instruction::Swap, same],
            // The value that is looked at or through; it may be long, and the answer short.
            Instruction::In | Instruction::Eq | Instruction::Ne | Instruction::PerformTest(..) => {
                vec![filter(MADE, 1), same]
            }
            Instruction::Add
            | Instruction::StringConcat
            | Instruction::BuildList(_)
            | Instruction::BuildTuple(_)
            | Instruction::BuildMap(_)
            | Instruction::Slice
            | Instruction::EndCapture
            | Instruction::ApplyFilter(..)
            | Instruction::CallFunction(..)
            | Instruction::CallMethod(..)
            | Instruction::CallObject(_) => vec![same, filter(MADE, 1)],
            _ => vec![same],
        }
    };
    let parts: Vec<_> = (0..).map_while(|index| code.get(index)).map(rewrite).collect();
    let addresses: Vec<u32> = parts
        .iter()
        .scan(0, |next, part| {
            let address = *next;
            *next += part.len() as u32;
            Some(address)
        })
        .collect();
    let end = parts.iter().map(Vec::len).sum::<usize>() as u32;
    let moved = |address: u32| addresses.get(address as usize).copied().unwrap_or(end);
    let mut new = Instructions::new(code.name(), code.source());
    for (index, part) in (0..).zip(parts) {
        let line = code.get_line(index).and_then(|line| u16::try_from(line).ok()).unwrap_or_default();
        for instruction in part {
            new.add_with_line(relocated(instruction, moved), line);
        }
    }
    new
}

/// The instruction with the address in it, if there is one, replaced.
fn relocated<'source>(instruction: Instruction<'source>, moved: impl Fn(u32) -> u32) -> Instruction<'source> {
    match instruction {
        Instruction::Iterate(to) => Instruction::Iterate(moved(to)),
        Instruction::Jump(to) => Instruction::Jump(moved(to)),
        Instruction::JumpIfFalse(to) => Instruction::JumpIfFalse(moved(to)),
        Instruction::JumpIfFalseOrPop(to) => Instruction::JumpIfFalseOrPop(moved(to)),
        Instruction::JumpIfTrueOrPop(to) => Instruction::JumpIfTrueOrPop(moved(to)),
        Instruction::BuildMacro(name, to, flags) => Instruction::BuildMacro(name, moved(to), flags),
        other => other,
    }
}

fn refused(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.into())
}

/// Charges `bytes` to the rendering.
pub(super) fn charge(state: &mut State, bytes: usize) -> Result<(), Error> {
    let made = state.get_or_insert_extension_with(Made::default);
    made.0 = made.0.saturating_add(bytes);
    if made.0 > MAX_MADE {
        return Err(refused(format!("the template makes more than {MAX_MADE} bytes")));
    }
    Ok(())
}

fn made(state: &mut State, value: &Value, namespace: bool) -> Result<Value, Error> {
    if value.is_kwargs() {
        return Ok(value.clone());
    }
    if let Some(text) = value.as_str() {
        check_text(text.len())?;
        charge(state, text.len())?;
    } else if value.as_object().is_some() {
        if is_namespace(value) {
            return if namespace { Ok(value.clone()) } else { Err(nested_namespace()) };
        }
        weigh(state, value, 0)?;
    }
    Ok(value.clone())
}

/// Charges all elements of a list or map, and theirs; as a tree, even if they share parts.
fn weigh(state: &mut State, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(refused(format!("a value has more than {MAX_DEPTH} levels")));
    }
    let map = value.kind() == ValueKind::Map;
    if !map && !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Ok(());
    }
    for item in value.try_iter()? {
        charge(state, ELEMENT)?;
        let item = if map { value.get_item(&item)? } else { item };
        if is_namespace(&item) {
            return Err(nested_namespace());
        }
        if item.as_object().is_some() {
            weigh(state, &item, depth + 1)?;
        }
    }
    Ok(())
}

fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

fn nested_namespace() -> Error {
    refused("a namespace cannot be part of another value")
}

/// `*`: of numbers, or of a string or list and a number.
fn times(left: &Value, right: &Value) -> Result<Value, Error> {
    let impossible = || refused(format!("{} and {} cannot be multiplied", left.kind(), right.kind()));
    if let (Some(left), Some(right)) = (left.as_i64(), right.as_i64()) {
        return left
            .checked_mul(right)
            .map(Value::from)
            .ok_or_else(|| refused(format!("{left} * {right} is too large")));
    }
    if left.is_number() && right.is_number() {
        return Ok(Value::from(f64::try_from(left.clone())? * f64::try_from(right.clone())?));
    }
    let (value, count) = if left.is_number() { (right, left) } else { (left, right) };
    let count = usize::try_from(count.as_i64().ok_or_else(impossible)?.max(0)).unwrap_or(usize::MAX);
    if let Some(text) = value.as_str() {
        check_text(text.len().saturating_mul(count))?;
        return Ok(Value::from(text.repeat(count)));
    }
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        return Err(impossible());
    }
    let items: Vec<Value> = value.try_iter()?.collect();
    check_text(items.len().saturating_mul(count).saturating_mul(ELEMENT))?;
    Ok(std::iter::repeat_n(items, count).flatten().collect())
}

/// Replaces all occurrences; an empty `from` is before every character and at the end.
pub(super) fn replace(state: &mut State, value: &str, from: &str, to: &str) -> Result<String, Error> {
    charge(state, value.len())?;
    let count = value.matches(from).count();
    check_text(value.len().saturating_add(count.saturating_mul(to.len())))?;
    Ok(value.replace(from, to))
}

/// Joins the elements of a list, or an attribute of each.
pub(super) fn join(value: &Value, joiner: &str, attribute: Option<&str>) -> Result<String, Error> {
    let items = if value.is_undefined() { Vec::new() } else { value.try_iter()?.collect() };
    let items: Vec<Value> = match attribute {
        Some(name) => items.into_iter().map(|item| item.get_attr(name)).collect::<Result<_, _>>()?,
        None => items,
    };
    bounded(|into| {
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                into.write_str(joiner)?;
            }
            match item.as_str() {
                Some(text) => into.write_str(text)?,
                None => std::fmt::write(into, format_args!("{item}"))?,
            }
        }
        Ok(())
    })
}

/// Indents the lines of a text as Jinja does: by a number of spaces or by a string, not the first line and
/// not empty lines unless told.
fn indent(
    value: &str,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    named: Kwargs,
) -> Result<String, Error> {
    let width = match width {
        Some(width) => width,
        None => named.get::<Option<Value>>("width")?.unwrap_or_else(|| Value::from(4)),
    };
    let first = first.or(named.get("first")?).unwrap_or(false);
    let blank = blank.or(named.get("blank")?).unwrap_or(false);
    named.assert_all_used()?;
    let prefix = match (width.as_str(), width.as_usize()) {
        (Some(text), _) => text.to_owned(),
        (None, Some(count)) => {
            check_width(count)?;
            " ".repeat(count)
        }
        (None, None) => return Err(refused(format!("an indentation of {width}"))),
    };
    let lines = value.matches('\n').count() + 1;
    check_text(value.len().saturating_add(lines.saturating_mul(prefix.len())))?;
    let mut indented = String::new();
    for (index, line) in value.split('\n').enumerate() {
        if index > 0 {
            indented.push('\n');
        }
        if (index > 0 || first) && (blank || !line.is_empty()) {
            indented.push_str(&prefix);
        }
        indented.push_str(line);
    }
    Ok(indented)
}

/// Refuses a format string that asks for wide fields.
pub(super) fn check_format(format: &str) -> Result<(), Error> {
    let mut digits =
        format.split(|character: char| !character.is_ascii_digit()).filter(|run| !run.is_empty());
    match digits.find(|run| run.parse().map_or(true, |width: usize| width > MAX_WIDTH)) {
        Some(width) => Err(refused(format!("a width of {width} is more than {MAX_WIDTH}"))),
        None if format.contains('*') => Err(refused("a width that is an argument")),
        None => Ok(()),
    }
}

fn check_width(width: usize) -> Result<(), Error> {
    if width > MAX_WIDTH {
        Err(refused(format!("a width of {width} is more than {MAX_WIDTH}")))
    } else {
        Ok(())
    }
}

pub(super) fn check_text(length: usize) -> Result<(), Error> {
    if length > MAX_TEXT {
        Err(refused(format!("a text of {length} bytes is longer than {MAX_TEXT}")))
    } else {
        Ok(())
    }
}

/// Runs a writer into a string of at most [`MAX_TEXT`] bytes.
pub(super) fn bounded(
    write: impl FnOnce(&mut dyn std::fmt::Write) -> std::fmt::Result,
) -> Result<String, Error> {
    let mut text = Bounded(String::new());
    match write(&mut text) {
        Ok(()) => Ok(text.0),
        Err(std::fmt::Error) => Err(refused(format!("a text is longer than {MAX_TEXT} bytes"))),
    }
}

/// A string with a limit.
#[derive(Debug, Default)]
pub(super) struct Bounded(pub(super) String);

impl std::fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        if self.0.len() + text.len() > MAX_TEXT {
            return Err(std::fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}
