//! ggml's storage formats against vectors made by ggml itself, and what packing keeps of them.

mod common;

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::Deserialize;
use wafer_engine::gguf::GgmlDType;
use wafer_engine::kernels::{Form, Matrix, ggml};

#[derive(Deserialize)]
struct Vector {
    block_size: usize,
    bytes_b64: String,
    f32: Vec<f32>,
}

fn dtype(name: &str) -> GgmlDType {
    match name {
        "F16" => GgmlDType::F16,
        "Q4_0" => GgmlDType::Q4_0,
        "Q4_1" => GgmlDType::Q4_1,
        "Q5_0" => GgmlDType::Q5_0,
        "Q5_1" => GgmlDType::Q5_1,
        "Q8_0" => GgmlDType::Q8_0,
        "Q2_K" => GgmlDType::Q2K,
        "Q3_K" => GgmlDType::Q3K,
        "Q4_K" => GgmlDType::Q4K,
        "Q5_K" => GgmlDType::Q5K,
        "Q6_K" => GgmlDType::Q6K,
        other => panic!("a type without a name here: {other}"),
    }
}

#[test]
fn every_type_is_read_as_ggml_reads_it() {
    let Some(path) = common::testdata("reference/dequant_vectors.json") else { return };
    let text = std::fs::read_to_string(path).expect("the vectors");
    let vectors: BTreeMap<String, Vector> = serde_json::from_str(&text).expect("the vectors' format");
    assert_eq!(vectors.len(), 11);
    for (name, vector) in vectors {
        let dtype = dtype(&name);
        assert_eq!(dtype.block_size(), vector.block_size, "{name}");
        let raw = BASE64_STANDARD.decode(&vector.bytes_b64).expect("base64");
        let mut out = vec![f32::NAN; vector.f32.len()];
        ggml::dequantize(dtype, &raw, &mut out);
        let largest = vector.f32.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        for (i, (got, expected)) in out.iter().zip(&vector.f32).enumerate() {
            // ggml rounds a product in another place for some types: half a unit in the last place.
            assert!((got - expected).abs() <= 1e-7 * largest, "{name} at {i}: {got} instead of {expected}");
        }
        packed(&name, dtype, &raw, &vector.f32, largest);
    }
}

/// What a packed matrix holds: exactly the same where quants and scales are kept, else within a fraction of the
/// largest value, which is below the type's own step.
fn packed(name: &str, dtype: GgmlDType, raw: &[u8], expected: &[f32], largest: f32) {
    let mut matrix = Matrix::new(Form::of(dtype), 1, expected.len()).expect("a matrix");
    matrix.push(dtype, raw);
    let mut out = vec![f32::NAN; expected.len()];
    matrix.row(0, &mut out);
    let limit = match name {
        "F16" | "Q4_0" | "Q4_1" | "Q5_0" | "Q8_0" => 1e-7,
        "Q4_K" => 1e-3,
        _ => 0.5 / 127.0 * 1.01,
    };
    for (i, (got, expected)) in out.iter().zip(expected).enumerate() {
        assert!(
            (got - expected).abs() <= limit * largest,
            "{name} packed, at {i}: {got} instead of {expected}"
        );
    }
}
