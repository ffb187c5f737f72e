//! The tensors of a compute: what goes in, what comes out.
//!
//! | input | type | shape | meaning |
//! |---|---|---|---|
//! | `tokens` | I32 | `[n]` | the tokens to append, at least one |
//! | `position` | I32 | `[1]` | the KV cache is cut to this length first |
//! | `outputs` | I32 | `[1]` | how many of the last tokens want logits; 64 at most |
//! | `top_k` | I32 | `[1]` | optional: only the largest logits are wanted, so many |
//!
//! | output | type | shape | meaning |
//! |---|---|---|---|
//! | `logits` | FP32 | `[outputs, vocabulary]` | without `top_k` |
//! | `top_ids` | I32 | `[outputs, k]` | with `top_k`: token ids, the largest logit first, the lowest id among equals |
//! | `top_logits` | FP32 | `[outputs, k]` | their logits |
//! | `cached` | I32 | `[1]` | tokens that were not computed, because the prefix cache had them |
//!
//! Elements lie in memory with the lowest byte first. Without outputs there is only `cached`.

use crate::error::{Error, Result};
use crate::output::{Output, Rows};
use crate::scheduler::Step;

/// Types of elements that a compute takes and gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 32-bit integers.
    I32,
    /// 32-bit floats.
    F32,
    /// Any other, which no compute takes.
    Other,
}

/// A tensor of wasi-nn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Sizes.
    pub dimensions: Vec<u32>,
    /// Type of the elements.
    pub kind: Kind,
    /// The elements' bytes.
    pub data: Vec<u8>,
}

impl Tensor {
    /// Of the dimensions `[n]` or `[rows, n / rows]`.
    fn new<T>(rows: Option<usize>, kind: Kind, elements: &[T], bytes: impl Fn(&T) -> [u8; 4]) -> Self {
        let dimension = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let dimensions = match rows {
            None => vec![dimension(elements.len())],
            Some(rows) => vec![dimension(rows), dimension(elements.len() / rows.max(1))],
        };
        Self { dimensions, kind, data: elements.iter().flat_map(bytes).collect() }
    }
}

/// Reads a step from the inputs of a compute.
///
/// # Errors
/// [`Error::Invalid`] for an input that is missing, unknown, twice there or of another type, shape or range.
pub fn step(inputs: &[(String, Tensor)]) -> Result<Step> {
    let (mut tokens, mut position, mut outputs, mut top) = (None, None, None, None);
    for (name, tensor) in inputs {
        let place = match name.as_str() {
            "tokens" => &mut tokens,
            "position" => &mut position,
            "outputs" => &mut outputs,
            "top_k" => &mut top,
            _ => {
                return Err(Error::Invalid(format!(
                    "input {name:?}, known are tokens, position, outputs and top_k"
                )));
            }
        };
        if place.replace(integers(name, tensor)?).is_some() {
            return Err(Error::Invalid(format!("input {name} is there twice")));
        }
    }
    let tokens = tokens.ok_or_else(|| Error::Invalid("input tokens is missing".to_owned()))?;
    let one = |name: &str, values: Option<Vec<u32>>| match values.as_deref() {
        None => Ok(None),
        Some([value]) => Ok(Some(*value as usize)),
        Some(values) => Err(Error::Invalid(format!("{name} has {} elements, it takes one", values.len()))),
    };
    let needed = |name: &str, value: Option<usize>| {
        value.ok_or_else(|| Error::Invalid(format!("input {name} is missing")))
    };
    Ok(Step {
        tokens,
        position: needed("position", one("position", position)?)?,
        outputs: needed("outputs", one("outputs", outputs)?)?,
        top: one("top_k", top)?,
    })
}

/// Elements that are numbers from 0 on.
fn integers(name: &str, tensor: &Tensor) -> Result<Vec<u32>> {
    let (elements, rest) = tensor.data.as_chunks::<4>();
    let shape: Option<usize> =
        tensor.dimensions.iter().try_fold(1_usize, |product, &size| product.checked_mul(size as usize));
    if tensor.kind != Kind::I32
        || !rest.is_empty()
        || shape != Some(elements.len())
        || tensor.dimensions.len() != 1
    {
        return Err(Error::Invalid(format!(
            "{name} is {:?} of the dimensions {:?} in {} bytes, it takes I32 of one dimension",
            tensor.kind,
            tensor.dimensions,
            tensor.data.len()
        )));
    }
    let number = |bytes: &[u8; 4]| {
        let value = i32::from_le_bytes(*bytes);
        u32::try_from(value)
            .map_err(|_negative| Error::Invalid(format!("{name} has {value}, it must not be negative")))
    };
    elements.iter().map(number).collect()
}

/// Writes the outputs of a compute that asked for the logits of `outputs` tokens.
pub fn tensors(output: Output, outputs: usize) -> Vec<(String, Tensor)> {
    let float = |value: &f32| value.to_le_bytes();
    let integer = |value: &u32| value.to_le_bytes();
    let cached = u32::try_from(output.cached).unwrap_or(u32::MAX);
    let cached = ("cached".to_owned(), Tensor::new(None, Kind::I32, &[cached], integer));
    if outputs == 0 {
        return vec![cached];
    }
    match output.rows {
        Rows::Logits(logits) => {
            vec![("logits".to_owned(), Tensor::new(Some(outputs), Kind::F32, &logits, float)), cached]
        }
        Rows::Top { ids, logits, .. } => vec![
            ("top_ids".to_owned(), Tensor::new(Some(outputs), Kind::I32, &ids, integer)),
            ("top_logits".to_owned(), Tensor::new(Some(outputs), Kind::F32, &logits, float)),
            cached,
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(name: &str, values: &[i32]) -> (String, Tensor) {
        (name.to_owned(), Tensor::new(None, Kind::I32, values, |value| value.to_le_bytes()))
    }

    #[test]
    fn inputs_are_read_or_refused() {
        let (tokens, position, outputs) =
            (input("tokens", &[3, 4]), input("position", &[7]), input("outputs", &[1]));
        let inputs = [tokens.clone(), position.clone(), outputs.clone()];
        let expected = Step { tokens: vec![3, 4], position: 7, outputs: 1, top: None };
        assert_eq!(step(&inputs), Ok(expected.clone()));
        let top = [&inputs[..], &[input("top_k", &[40])]].concat();
        assert_eq!(step(&top), Ok(Step { top: Some(40), ..expected }));

        let float = ("tokens".to_owned(), Tensor { kind: Kind::F32, ..tokens.1.clone() });
        let long = ("tokens".to_owned(), Tensor { dimensions: vec![3], ..tokens.1.clone() });
        let huge = ("tokens".to_owned(), Tensor { dimensions: vec![u32::MAX; 3], ..tokens.1.clone() });
        for (inputs, message) in [
            (vec![position.clone(), outputs.clone()], "input tokens is missing"),
            (vec![tokens.clone(), outputs.clone()], "input position is missing"),
            (vec![tokens.clone(), position.clone()], "input outputs is missing"),
            (vec![tokens.clone(), tokens.clone()], "input tokens is there twice"),
            (vec![input("token", &[1])], "input \"token\", known are tokens, position, outputs and top_k"),
            (vec![tokens.clone(), input("position", &[1, 2])], "position has 2 elements, it takes one"),
            (vec![input("tokens", &[1, -2])], "tokens has -2, it must not be negative"),
            (vec![float], "tokens is F32 of the dimensions [2] in 8 bytes, it takes I32 of one dimension"),
            (vec![long], "tokens is I32 of the dimensions [3] in 8 bytes, it takes I32 of one dimension"),
            (
                vec![huge],
                "tokens is I32 of the dimensions [4294967295, 4294967295, 4294967295] in 8 bytes, it takes I32 of one dimension",
            ),
        ] {
            assert_eq!(step(&inputs), Err(Error::Invalid(message.to_owned())));
        }
    }

    #[test]
    fn outputs_have_their_names_and_shapes() {
        let names = |rows: Rows, outputs: usize| -> Vec<(String, Vec<u32>, usize)> {
            let tensors = tensors(Output { rows, cached: 5 }, outputs);
            tensors.into_iter().map(|(name, t)| (name, t.dimensions, t.data.len())).collect()
        };
        let cached = ("cached".to_owned(), vec![1], 4);
        assert_eq!(names(Rows::Logits(vec![]), 0), std::slice::from_ref(&cached));
        assert_eq!(
            names(Rows::Logits(vec![0.0; 6]), 2),
            [("logits".to_owned(), vec![2, 3], 24), cached.clone()]
        );
        let top = Rows::Top { k: 1, ids: vec![4, 5], logits: vec![0.5, 0.25] };
        let (ids, logits) = (("top_ids".to_owned(), vec![2, 1], 8), ("top_logits".to_owned(), vec![2, 1], 8));
        assert_eq!(names(top, 2), [ids, logits, cached]);
    }
}
