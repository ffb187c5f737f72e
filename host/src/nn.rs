//! wasi-nn for guests: models by name, and computes that suspend the guest instead of a thread.
//!
//! The bindings are wafer's own, because those of `wasmtime-wasi-nn` are synchronous: while the batch is
//! computed, a guest there blocks its thread, and a batch could be no larger than the number of threads.
//! What is computed, and how, is the crate `wafer-nn`'s. Guests see the models that their runtime shows them, and
//! cannot bring their own.

use wafer_nn::contract::{self, Kind, Tensor};
use wafer_nn::{Context, Graph, Registry, Tenant};
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};

use bindings::errors::ErrorCode;
use bindings::graph::{ExecutionTarget, GraphEncoding};
use bindings::tensor::TensorType;

use crate::runtime::State;

/// The interfaces of wasi-nn.
mod bindings {
    mod generated {
        wasmtime::component::bindgen!({
            path: "../wit",
            world: "computing",
            imports: {
                default: trappable,
                "wasi:nn/inference@0.2.0-rc-2024-10-28.[method]graph-execution-context.compute": async | trappable,
            },
            with: {
                "wasi:nn/tensor.tensor": wafer_nn::contract::Tensor,
                "wasi:nn/graph.graph": wafer_nn::Graph,
                "wasi:nn/inference.graph-execution-context": wafer_nn::Context,
                "wasi:nn/errors.error": crate::nn::Failure,
            },
        });
    }

    pub(super) use generated::wasi::nn::{errors, graph, inference, tensor};
}

/// Why something was not done, as the guest sees it.
#[expect(unreachable_pub, reason = "the generated bindings export it again")]
#[derive(Debug)]
pub struct Failure {
    code: ErrorCode,
    text: String,
}

impl Failure {
    fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Failure { code, text: text.into() }
    }
}

impl From<wafer_nn::Error> for Failure {
    fn from(error: wafer_nn::Error) -> Self {
        let code = match error {
            wafer_nn::Error::Invalid(_) => ErrorCode::InvalidArgument,
            wafer_nn::Error::Busy(_) => ErrorCode::Timeout,
            wafer_nn::Error::Failed(_) => ErrorCode::RuntimeError,
        };
        Failure::new(code, error.to_string())
    }
}

/// What a guest may compute with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Models {
    pub(crate) registry: Registry,
    /// Whose prefixes its sequences share.
    pub(crate) tenant: Tenant,
}

/// A guest's models and resources.
pub(crate) struct View<'a> {
    pub(crate) models: &'a Models,
    pub(crate) table: &'a mut ResourceTable,
}

struct Has;

impl HasData for Has {
    type Data<'a> = View<'a>;
}

/// Adds wasi-nn to what guests may import.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    bindings::tensor::add_to_linker::<_, Has>(linker, State::nn)?;
    bindings::errors::add_to_linker::<_, Has>(linker, State::nn)?;
    bindings::inference::add_to_linker::<_, Has>(linker, State::nn)?;
    bindings::graph::add_to_linker::<_, Has>(linker, State::nn)
}

type Answer<T> = wasmtime::Result<Result<T, Resource<Failure>>>;

impl View<'_> {
    fn answer<T: Send + 'static>(&mut self, result: Result<T, Failure>) -> Answer<Resource<T>> {
        match result {
            Ok(value) => Ok(Ok(self.table.push(value)?)),
            Err(failure) => self.refuse(failure),
        }
    }

    fn refuse<T>(&mut self, failure: Failure) -> Answer<T> {
        tracing::debug!("wasi-nn: {failure:?}");
        Ok(Err(self.table.push(failure)?))
    }
}

impl bindings::graph::Host for View<'_> {
    fn load(
        &mut self,
        _: Vec<bindings::graph::GraphBuilder>,
        _: GraphEncoding,
        _: ExecutionTarget,
    ) -> Answer<Resource<Graph>> {
        let text = "models are loaded by name, not from a guest's bytes";
        self.refuse(Failure::new(ErrorCode::UnsupportedOperation, text))
    }

    fn load_by_name(&mut self, name: String) -> Answer<Resource<Graph>> {
        let found = self.models.registry.get(&name);
        self.answer(
            found.ok_or_else(|| Failure::new(ErrorCode::NotFound, format!("there is no model {name:?}"))),
        )
    }
}

impl bindings::graph::HostGraph for View<'_> {
    fn init_execution_context(&mut self, graph: Resource<Graph>) -> Answer<Resource<Context>> {
        let context = self.table.get(&graph)?.context(self.models.tenant);
        self.answer(Ok(context))
    }

    fn drop(&mut self, graph: Resource<Graph>) -> wasmtime::Result<()> {
        self.table.delete(graph)?;
        Ok(())
    }
}

impl bindings::inference::Host for View<'_> {}

impl bindings::inference::HostGraphExecutionContext for View<'_> {
    async fn compute(
        &mut self,
        context: Resource<Context>,
        inputs: Vec<(String, Resource<Tensor>)>,
    ) -> Answer<Vec<(String, Resource<Tensor>)>> {
        let mut tensors = Vec::with_capacity(inputs.len());
        for (name, tensor) in inputs {
            tensors.push((name, self.table.delete(tensor)?));
        }
        let step = match contract::step(&tensors) {
            Ok(step) => step,
            Err(error) => return self.refuse(error.into()),
        };
        let outputs = step.outputs;
        match self.table.get_mut(&context)?.compute(step).await {
            Ok(output) => {
                let outputs = contract::tensors(output, outputs).into_iter();
                let outputs = outputs.map(|(name, tensor)| Ok((name, self.table.push(tensor)?)));
                Ok(Ok(outputs.collect::<wasmtime::Result<_>>()?))
            }
            Err(error) => self.refuse(error.into()),
        }
    }

    fn drop(&mut self, context: Resource<Context>) -> wasmtime::Result<()> {
        self.table.delete(context)?;
        Ok(())
    }
}

impl bindings::tensor::Host for View<'_> {}

impl bindings::tensor::HostTensor for View<'_> {
    fn new(
        &mut self,
        dimensions: Vec<u32>,
        ty: TensorType,
        data: Vec<u8>,
    ) -> wasmtime::Result<Resource<Tensor>> {
        let kind = match ty {
            TensorType::I32 => Kind::I32,
            TensorType::Fp32 => Kind::F32,
            _ => Kind::Other,
        };
        Ok(self.table.push(Tensor { dimensions, kind, data })?)
    }

    fn dimensions(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<Vec<u32>> {
        Ok(self.table.get(&tensor)?.dimensions.clone())
    }

    fn ty(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<TensorType> {
        Ok(match self.table.get(&tensor)?.kind {
            Kind::I32 => TensorType::I32,
            Kind::F32 => TensorType::Fp32,
            Kind::Other => {
                return Err(wasmtime::Error::msg("the tensor's type is none that a compute takes or gives"));
            }
        })
    }

    fn data(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<Vec<u8>> {
        Ok(self.table.get(&tensor)?.data.clone())
    }

    fn drop(&mut self, tensor: Resource<Tensor>) -> wasmtime::Result<()> {
        self.table.delete(tensor)?;
        Ok(())
    }
}

impl bindings::errors::Host for View<'_> {}

impl bindings::errors::HostError for View<'_> {
    fn code(&mut self, error: Resource<Failure>) -> wasmtime::Result<ErrorCode> {
        Ok(self.table.get(&error)?.code)
    }

    fn data(&mut self, error: Resource<Failure>) -> wasmtime::Result<String> {
        Ok(self.table.get(&error)?.text.clone())
    }

    fn drop(&mut self, error: Resource<Failure>) -> wasmtime::Result<()> {
        self.table.delete(error)?;
        Ok(())
    }
}
