//! The backend for wasmtime-wasi-nn, through that crate's own types.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use wafer_nn::backend::{Ggml, Named};
use wafer_nn::{Graph, Limits, Options};
use wasmtime_wasi_nn::backend::NamedTensor;
use wasmtime_wasi_nn::wit::{Tensor, TensorType, WasiNnCtx};
use wasmtime_wasi_nn::{Backend, GraphRegistry, Registry};

fn input(name: &str, values: &[i32]) -> NamedTensor {
    let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let tensor = Tensor { dimensions: vec![values.len() as u32], ty: TensorType::I32, data };
    NamedTensor { name: name.to_owned(), tensor }
}

#[test]
fn a_context_computes() {
    let limits = Limits { kv_bytes: 1 << 30, patience: Duration::ZERO, queue: 1 };
    let options = Options { threads: 1, quantize: None, limits };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo.gguf");
    let graph = Graph::load(&path, &options, &mut |_, _| {}).expect("the demo model is there");
    let vocabulary = graph.shape().vocabulary as u32;
    let models = || Named::new([("demo".to_owned(), graph.clone())], 0);
    assert!(models().get("other").is_none());

    let named = models();
    let mut context = named.get("demo").expect("it is known").init_execution_context().expect("a context");
    let shapes = |inputs: Vec<NamedTensor>, context: &mut wasmtime_wasi_nn::ExecutionContext| {
        let outputs = context
            .compute_with_io(inputs)
            .map_err(|error| error.source().map(ToString::to_string).unwrap_or_default())?;
        Ok::<_, String>(outputs.into_iter().map(|o| (o.name, o.tensor.dimensions)).collect::<Vec<_>>())
    };
    let cached = ("cached".to_owned(), vec![1]);
    let step = |position: i32, outputs: i32| {
        vec![input("tokens", &[420, 421]), input("position", &[position]), input("outputs", &[outputs])]
    };
    let all = shapes(step(0, 2), &mut context).expect("logits");
    assert_eq!(all, [("logits".to_owned(), vec![2, vocabulary]), cached.clone()]);
    let mut best = step(2, 1);
    best.push(input("top_k", &[5]));
    let best = shapes(best, &mut context).expect("the best");
    assert_eq!(best, [("top_ids".to_owned(), vec![1, 5]), ("top_logits".to_owned(), vec![1, 5]), cached]);
    let error = shapes(step(9, 1), &mut context).expect_err("an error");
    assert!(error.contains("position is 9, the sequence has 4 tokens"), "{error}");

    // As an embedder puts it together.
    drop(WasiNnCtx::new([Backend::from(Ggml)], Registry::from(models())));
}
