//! What stands in for functions of interfaces that were taken away: two core modules.
//!
//! One refuses: its functions end the instance. It needs nothing, so it is there before anything may call it.
//! The other one answers "nothing", by writing zeros to where the caller expects a list or an option; it needs
//! the caller's memory, and gets it when that exists.

use std::collections::BTreeMap;
use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{
    CodeSection, EntityType, ExportKind, ExportSection, Function, FunctionSection, ImportSection, MemArg,
    MemoryType, Module, TypeSection, ValType,
};
use wasmparser::FuncType;

/// How a function answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// An empty list: two zeros, pointer and length.
    Empty,
    /// No value: the discriminant zero.
    None,
    /// The call ends the instance: what it would act on cannot exist, or to end was its purpose.
    Refused,
}

impl Answer {
    /// The answer of a function, named as `INTERFACE FUNCTION`.
    pub(super) fn of(name: &str) -> Self {
        match name.split(' ').next_back().unwrap_or_default() {
            "get-arguments" | "get-directories" | "get-environment" => Answer::Empty,
            "get-terminal-stderr" | "get-terminal-stdin" | "get-terminal-stdout" | "initial-cwd" => {
                Answer::None
            }
            _ => Answer::Refused,
        }
    }
}

/// The stubs that a component needs, by their names in the modules.
#[derive(Default)]
pub(super) struct Stubs {
    refusals: BTreeMap<String, FuncType>,
    answers: BTreeMap<String, (FuncType, Answer)>,
}

/// Where the answering module finds its caller's memory.
pub(super) const MEMORY: &str = "memory";

impl Stubs {
    /// Asks for a stub. The last parameter of one that answers is a pointer to the result.
    pub(super) fn add(&mut self, name: String, signature: FuncType, answer: Answer) {
        match answer {
            Answer::Refused => drop(self.refusals.insert(name, signature)),
            _ => drop(self.answers.insert(name, (signature, answer))),
        }
    }

    /// The module without memory.
    pub(super) fn refusals(&self) -> anyhow::Result<Module> {
        let functions = self.refusals.iter().map(|(name, signature)| {
            let mut body = Function::new([]);
            body.instructions().unreachable().end();
            (name, signature, body)
        });
        module(None, functions)
    }

    /// The module that imports its caller's memory, as `"" "memory"`.
    pub(super) fn answers(&self) -> anyhow::Result<Module> {
        let functions = self.answers.iter().map(|(name, (signature, answer))| {
            let mut body = Function::new([]);
            let result = signature.params().len().saturating_sub(1) as u32;
            let at = |align| MemArg { offset: 0, align, memory_index: 0 };
            let mut code = body.instructions();
            code.local_get(result);
            match answer {
                Answer::Empty => code.i64_const(0).i64_store(at(2)),
                _ => code.i32_const(0).i32_store8(at(0)),
            };
            code.end();
            (name, signature, body)
        });
        let memory =
            MemoryType { minimum: 0, maximum: None, memory64: false, shared: false, page_size_log2: None };
        module(Some(memory), functions)
    }
}

/// A module that exports `functions`.
fn module<'a>(
    memory: Option<MemoryType>,
    functions: impl Iterator<Item = (&'a String, &'a FuncType, Function)>,
) -> anyhow::Result<Module> {
    let (mut types, mut imports) = (TypeSection::new(), ImportSection::new());
    let (mut declared, mut exports, mut code) =
        (FunctionSection::new(), ExportSection::new(), CodeSection::new());
    if let Some(memory) = memory {
        imports.import("", MEMORY, EntityType::Memory(memory));
    }
    for (index, (name, signature, body)) in (0..).zip(functions) {
        types.ty().function(values(signature.params())?, values(signature.results())?);
        declared.function(index);
        exports.export(name, ExportKind::Func, index);
        code.function(&body);
    }
    let mut module = Module::new();
    module.section(&types).section(&imports).section(&declared).section(&exports).section(&code);
    Ok(module)
}

fn values(types: &[wasmparser::ValType]) -> anyhow::Result<Vec<ValType>> {
    Ok(types.iter().map(|ty| RoundtripReencoder.val_type(*ty)).collect::<Result<_, _>>()?)
}
