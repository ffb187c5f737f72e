//! What components of any world import, so far as their model needs it: to prepare it, and to call it.
//!
//! WASI is there in both versions. What only other hosts have, as Spin's key-value stores, is there in name: it traps when
//! it is called, which no model does.

use anyhow::Context;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, LinkerInstance, ResourceType};

use super::State;

/// Stands for resources that nobody can make here.
struct Elsewhere;

/// A linker for `component`.
pub(crate) fn linker(component: &Component) -> anyhow::Result<Linker<State>> {
    let mut linker = super::linker(component.engine())?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    let engine = component.engine();
    for (name, item) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(interface) = item.ty else { continue };
        // WASI is not touched: its interfaces share resources, which a stub would replace.
        if name.starts_with("wasi:") {
            continue;
        }
        let mut instance = linker.instance(name)?;
        for (item, export) in interface.exports(engine) {
            stub(&mut instance, name, item, &export.ty)
                .map_err(anyhow::Error::from)
                .with_context(|| format!("the component imports {name}"))?;
        }
    }
    Ok(linker)
}

/// Defines `item` of the interface `name` as a trap.
fn stub(
    instance: &mut LinkerInstance<'_, State>,
    name: &str,
    item: &str,
    ty: &ComponentItem,
) -> wasmtime::Result<()> {
    let trap = format!("{name} has no {item} here");
    match ty {
        ComponentItem::ComponentFunc(function) if function.async_() => {
            instance.func_new_concurrent(item, move |_, _, _, _| {
                let trap = trap.clone();
                Box::pin(async move { Err(wasmtime::Error::msg(trap)) })
            })
        }
        ComponentItem::ComponentFunc(_) => {
            instance.func_new(item, move |_, _, _, _| Err(wasmtime::Error::msg(trap.clone())))
        }
        ComponentItem::Resource(_) => {
            instance.resource(item, ResourceType::host::<Elsewhere>(), |_, _| Ok(()))
        }
        _ => Ok(()),
    }
}
