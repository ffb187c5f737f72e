//! Sealed components, compared with those that are not.

use super::*;

use wasmtime_wasi::WasiCtx;

use crate::config::Model;
use crate::embedded;
use crate::model::Mount;
use crate::nn::Models;
use crate::output::Output;
use crate::runtime::bindings::Model as Exports;
use crate::runtime::bindings::generator::{Error, ModelInfo};
use crate::runtime::{Compiled, State, engine, linker, store};

/// What a component that is not baked says of its model, on a host that offers everything.
async fn model(component: &[u8]) -> Result<ModelInfo, Error> {
    let engine = engine().expect("an engine");
    let compiled = Compiled::new(&engine, component).and_then(|code| code.load(&engine));
    let mount = Mount::new(&Model::Demo).expect("a temporary directory can be made");
    let mut wasi = WasiCtx::builder();
    mount.show(&mut wasi).expect("it is there");
    let state = State::new(wasi.build(), Models::default(), 1 << 30, Output::new("stderr", &"test"));
    let (mut store, linker) = (store(&engine, state), linker(&engine).expect("a linker"));
    let guest = Exports::instantiate_async(&mut store, &compiled.expect("it is valid"), &linker).await;
    let guest = guest.expect("it is of this world");
    guest.wafer_inference_generator().call_model(&mut store).await.expect("it does not trap")
}

#[tokio::test]
async fn a_sealed_guest_sees_neither_environment_nor_files() {
    let sealed = seal(embedded::COMPONENT.to_vec()).expect("it can be sealed");
    assert_eq!(model(embedded::COMPONENT).await.map(|model| model.id).ok().as_deref(), Some("demo"));
    match model(&sealed).await {
        // Where a model is sought that nothing was said about.
        Err(Error::Failed(text)) => assert!(text.contains("/models") && !text.contains("demo"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn sealing_leaves_nothing_to_seal() {
    let sealed = seal(embedded::COMPONENT.to_vec()).expect("it can be sealed");
    assert!(sealed.len() < embedded::COMPONENT.len());
    assert!(seal(sealed.clone()).expect("it is a component") == sealed);
}

#[test]
fn what_is_needed_otherwise_is_named() {
    // Exports an interface that it imports.
    let interface = wasm_encoder::InstanceType::new();
    let mut types = ComponentTypeSection::new();
    types.instance(&interface);
    let mut imports = ComponentImportSection::new();
    imports.import("wasi:cli/exit@0.2.12", wasm_encoder::ComponentTypeRef::Instance(0));
    let mut exports = wasm_encoder::ComponentExportSection::new();
    exports.export("wasi:cli/exit@0.2.12", wasm_encoder::ComponentExportKind::Instance, 0, None);
    let mut component = Component::new();
    component.section(&types).section(&imports).section(&exports);
    let error = seal(component.finish()).expect_err("it is needed");
    assert!(error.to_string().contains("wasi:cli/exit@0.2.12"), "{error:#}");
}
