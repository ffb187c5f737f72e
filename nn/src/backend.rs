//! The encoding `ggml` for `wasmtime-wasi-nn`.
//!
//! Its traits are synchronous: a guest that computes blocks the thread that it runs on. Give guests threads
//! of their own, as many as should be computed together; `tokio::task::spawn_blocking` does that.
//!
//! Guests load models by name, which the embedder has put into a [`Registry`]; bytes of their own are refused.

use std::collections::HashMap;

use wasmtime_wasi_nn::backend::{
    BackendError, BackendExecutionContext, BackendFromDir, BackendGraph, BackendInner, Id, NamedTensor,
};
use wasmtime_wasi_nn::wit::{ExecutionTarget, GraphEncoding, TensorType};
use wasmtime_wasi_nn::{ExecutionContext, GraphRegistry};

use crate::contract::{self, Kind, Tensor};
use crate::error::Error;
use crate::graph::{Context, Graph};
use crate::prefix::Tenant;

/// The backend, to be given to `WasiNnCtx::new`.
#[derive(Debug, Default)]
pub struct Ggml;

impl BackendInner for Ggml {
    fn encoding(&self) -> GraphEncoding {
        GraphEncoding::Ggml
    }

    fn load(&mut self, _: &[&[u8]], _: ExecutionTarget) -> Result<wasmtime_wasi_nn::Graph, BackendError> {
        Err(refused("models are loaded by name, not from a guest's bytes"))
    }

    fn as_dir_loadable(&mut self) -> Option<&mut dyn BackendFromDir> {
        None
    }
}

/// The models that guests of one tenant find by name.
pub struct Named(HashMap<String, wasmtime_wasi_nn::Graph>);

impl Named {
    /// Prefixes are shared among sequences of one tenant.
    pub fn new(graphs: impl IntoIterator<Item = (String, Graph)>, tenant: Tenant) -> Self {
        let graph = |graph| -> Box<dyn BackendGraph> { Box::new(Tenanted { graph, tenant }) };
        Self(graphs.into_iter().map(|(name, model)| (name, graph(model).into())).collect())
    }
}

impl std::fmt::Debug for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Named").field(&self.0.keys()).finish()
    }
}

impl GraphRegistry for Named {
    fn get(&self, name: &str) -> Option<&wasmtime_wasi_nn::Graph> {
        self.0.get(name)
    }

    fn get_mut(&mut self, name: &str) -> Option<&mut wasmtime_wasi_nn::Graph> {
        self.0.get_mut(name)
    }
}

struct Tenanted {
    graph: Graph,
    tenant: Tenant,
}

impl BackendGraph for Tenanted {
    fn init_execution_context(&self) -> Result<ExecutionContext, BackendError> {
        let context: Box<dyn BackendExecutionContext> = Box::new(Sequence(self.graph.context(self.tenant)));
        Ok(context.into())
    }
}

struct Sequence(Context);

impl BackendExecutionContext for Sequence {
    fn set_input(&mut self, _: Id, _: &wasmtime_wasi_nn::wit::Tensor) -> Result<(), BackendError> {
        Err(refused("inputs are given to compute"))
    }

    fn get_output(&mut self, _: Id) -> Result<wasmtime_wasi_nn::wit::Tensor, BackendError> {
        Err(refused("outputs are given by compute"))
    }

    fn compute(
        &mut self,
        inputs: Option<Vec<NamedTensor>>,
    ) -> Result<Option<Vec<NamedTensor>>, BackendError> {
        let inputs: Vec<(String, Tensor)> =
            inputs.unwrap_or_default().into_iter().map(|input| (input.name, from(input.tensor))).collect();
        let step = contract::step(&inputs).map_err(failed)?;
        let outputs = step.outputs;
        let output = self.0.compute_blocking(step).map_err(failed)?;
        let outputs = contract::tensors(output, outputs).into_iter();
        Ok(Some(outputs.map(|(name, tensor)| NamedTensor { name, tensor: to(tensor) }).collect()))
    }
}

fn from(tensor: wasmtime_wasi_nn::wit::Tensor) -> Tensor {
    let kind = match tensor.ty {
        TensorType::I32 => Kind::I32,
        TensorType::Fp32 => Kind::F32,
        _ => Kind::Other,
    };
    Tensor { dimensions: tensor.dimensions, kind, data: tensor.data }
}

fn to(tensor: Tensor) -> wasmtime_wasi_nn::wit::Tensor {
    let ty = match tensor.kind {
        Kind::I32 => TensorType::I32,
        Kind::F32 | Kind::Other => TensorType::Fp32,
    };
    wasmtime_wasi_nn::wit::Tensor { dimensions: tensor.dimensions, ty, data: tensor.data }
}

fn failed(error: Error) -> BackendError {
    BackendError::BackendAccess(wasmtime::Error::new(error))
}

fn refused(text: &'static str) -> BackendError {
    BackendError::BackendAccess(wasmtime::Error::msg(text))
}
