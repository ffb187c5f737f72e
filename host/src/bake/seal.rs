//! Sealing: a baked component loses the imports that only its standard library asked for.
//!
//! Rust links files, arguments, environment and terminals into every program. A baked one calls none of them: its
//! model is in memory. Their interfaces are taken out of the component, and the functions that the linker
//! wants in their place come from two little core modules inside it (`stubs`): there is no environment, no
//! directory, no terminal, and whatever else is called ends the instance. So a host need not offer any of it,
//! and a guest cannot use what a host offers.
//!
//! A component is a list of definitions that name each other by number, a series of numbers per kind. It
//! is written again without the imports and what is made of them, the other numbers moved up. Core functions
//! keep theirs: for each that falls away stands a stub.

mod series;
mod stubs;
#[cfg(test)]
mod tests;

use anyhow::{Context, bail};
use std::collections::BTreeSet;
use std::convert::Infallible;
use wasm_encoder::reencode::{Reencode, ReencodeComponent, component_utils};
use wasm_encoder::{
    Alias, CanonicalFunctionSection, Component, ComponentAliasSection, ComponentImportSection,
    ComponentSectionId, ComponentTypeSection, ExportKind, InstanceSection, ModuleArg, ModuleSection,
    RawSection,
};
use wasmparser::types::Types;
use wasmparser::{
    CanonicalFunction, CanonicalOption, Chunk, ComponentAlias, ComponentExternalKind, ComponentImport,
    ComponentOuterAliasKind, ComponentType, ComponentTypeRef, ExternalKind, KnownCustom, Parser, Payload,
    Validator, WasmFeatures,
};

use self::series::Series;
use self::stubs::{Answer, MEMORY, Stubs};

/// The core modules of stubs come first.
const REFUSALS: u32 = 0;
const ANSWERS: u32 = 1;
const MODULES: u32 = 2;
/// So does the instance of the one that needs nothing.
const REFUSING: u32 = 0;

/// Whether an interface is of no use to a baked component. Log lines go to stderr.
fn is_idle(interface: &str) -> bool {
    let Some((name, version)) = interface.split_once('@') else { return false };
    let of = |package| name.starts_with(package);
    version.starts_with("0.2.") && (of("wasi:filesystem/") || of("wasi:cli/")) && name != "wasi:cli/stderr"
}

/// The component without its idle imports. One without any comes back as it is; so does one of WASI 0.3, because this
/// knows nothing of asynchronous functions' types.
pub(super) fn seal(component: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let sections = sections(&component)?;
    let idle_types = idle_types(&sections)?;
    if idle_types.is_empty() || is_asynchronous(&sections)? {
        return Ok(component);
    }
    let types = Validator::new_with_features(WasmFeatures::all()).validate_all(&component)?;
    let mut sealer = Sealer::new(types, idle_types);
    for section in sections {
        sealer.section(section, &component)?;
    }
    sealer.finish()
}

/// The outermost level.
fn sections(component: &[u8]) -> anyhow::Result<Vec<Payload<'_>>> {
    let (mut parser, mut rest, mut sections) = (Parser::new(0), component, Vec::new());
    while !rest.is_empty() {
        let Chunk::Parsed { payload, consumed } = parser.parse(rest, true)? else {
            bail!("it ends in the middle")
        };
        let nested = match &payload {
            Payload::ModuleSection { unchecked_range, .. }
            | Payload::ComponentSection { unchecked_range, .. } => unchecked_range.len(),
            _ => 0,
        };
        rest = rest.get(consumed + nested..).context("it ends in the middle")?;
        sections.push(payload);
    }
    Ok(sections)
}

/// What it imports.
fn imports<'a>(sections: &'a [Payload<'a>]) -> impl Iterator<Item = wasmparser::Result<ComponentImport<'a>>> {
    let of = |section: &Payload<'a>| match section {
        Payload::ComponentImportSection(imports) => Some(imports.clone()),
        _ => None,
    };
    sections.iter().filter_map(of).flatten()
}

/// Whether it imports WASI 0.3.
fn is_asynchronous(sections: &[Payload]) -> anyhow::Result<bool> {
    for import in imports(sections) {
        if import?.name.name.contains("@0.3.") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Numbers of the types that describe idle interfaces; they stand before the imports.
fn idle_types(sections: &[Payload]) -> anyhow::Result<BTreeSet<u32>> {
    let mut idle = BTreeSet::new();
    for import in imports(sections) {
        let import = import?;
        if let (true, ComponentTypeRef::Instance(ty)) = (is_idle(import.name.name), import.ty) {
            idle.insert(ty);
        }
    }
    Ok(idle)
}

/// Writes the component again.
struct Sealer {
    types: Types,
    idle_types: BTreeSet<u32>,
    out: Component,
    stubs: Stubs,
    instances: Series,
    functions: Series,
    component_types: Series,
    core_instances: Series,
    /// How many core functions there are; their numbers stay.
    core_functions: u32,
    /// The memory that the answering stubs write to, and their instance.
    answering: Option<(u32, u32)>,
    /// How many types the position is inside of: numbers there are their own.
    depth: u32,
    /// Something that is kept, but made of something that is not.
    dangling: Option<String>,
}

impl Sealer {
    fn new(types: Types, idle_types: BTreeSet<u32>) -> Self {
        Sealer {
            types,
            idle_types,
            out: Component::new(),
            stubs: Stubs::default(),
            instances: Series::after(0),
            functions: Series::after(0),
            component_types: Series::after(0),
            core_instances: Series::after(REFUSING + 1),
            core_functions: 0,
            answering: None,
            depth: 0,
            dangling: None,
        }
    }

    /// The component, with the stubs in front.
    fn finish(self) -> anyhow::Result<Vec<u8>> {
        if let Some(what) = self.dangling {
            bail!("the component uses {what} otherwise than its standard library does");
        }
        let mut refusing = InstanceSection::new();
        refusing.instantiate::<_, &str>(REFUSALS, []);
        let mut front = Component::new();
        front
            .section(&ModuleSection(&self.stubs.refusals()?))
            .section(&ModuleSection(&self.stubs.answers()?))
            .section(&refusing);
        let mut bytes = self.out.finish();
        bytes.splice(..Component::HEADER.len(), front.finish());
        Ok(bytes)
    }

    fn section(&mut self, section: Payload, whole: &[u8]) -> anyhow::Result<()> {
        match &section {
            Payload::ComponentTypeSection(types) => {
                return types.clone().into_iter().try_for_each(|ty| self.define_type(ty?));
            }
            Payload::ComponentImportSection(imports) => {
                return imports.clone().into_iter().try_for_each(|import| self.import(import?));
            }
            Payload::ComponentAliasSection(aliases) => {
                return aliases.clone().into_iter().try_for_each(|alias| self.alias(alias?));
            }
            Payload::ComponentCanonicalSection(functions) => {
                return functions.clone().into_iter().try_for_each(|function| self.canonical(function?));
            }
            // What is nested has numbers of its own.
            Payload::ModuleSection { unchecked_range, .. } => {
                return self.copy(ComponentSectionId::CoreModule, whole.get(unchecked_range.clone()));
            }
            Payload::ComponentSection { unchecked_range, .. } => {
                return self.copy(ComponentSectionId::Component, whole.get(unchecked_range.clone()));
            }
            // Names of numbers that are others now.
            Payload::CustomSection(custom) if matches!(custom.as_known(), KnownCustom::ComponentName(_)) => {
                return Ok(());
            }
            Payload::ComponentInstanceSection(instances) => {
                (0..instances.count()).for_each(|_| self.instances.keep());
            }
            Payload::InstanceSection(instances) => {
                (0..instances.count()).for_each(|_| self.core_instances.keep());
            }
            Payload::ComponentExportSection(exports) => {
                for export in exports.clone() {
                    self.keep(export?.kind);
                }
            }
            _ => {}
        }
        let mut out = std::mem::take(&mut self.out);
        component_utils::parse_component_payload(self, &mut out, section, whole)?;
        self.out = out;
        Ok(())
    }

    fn copy(&mut self, id: ComponentSectionId, data: Option<&[u8]>) -> anyhow::Result<()> {
        let data = data.context("it ends in the middle")?;
        self.out.section(&RawSection { id: id.into(), data });
        Ok(())
    }

    /// A definition of this kind stays.
    fn keep(&mut self, kind: ComponentExternalKind) {
        match kind {
            ComponentExternalKind::Func => self.functions.keep(),
            ComponentExternalKind::Type => self.component_types.keep(),
            ComponentExternalKind::Instance => self.instances.keep(),
            // Nothing of these kinds falls away or is added in between.
            ComponentExternalKind::Module
            | ComponentExternalKind::Component
            | ComponentExternalKind::Value => {}
        }
    }

    fn define_type(&mut self, ty: ComponentType) -> anyhow::Result<()> {
        let number = self.component_types.met();
        if self.idle_types.contains(&number) {
            self.component_types.remove("the type of an interface".to_owned());
            return Ok(());
        }
        let mut section = ComponentTypeSection::new();
        self.parse_component_type(section.ty(), ty)?;
        self.out.section(&section);
        self.component_types.keep();
        Ok(())
    }

    fn import(&mut self, import: ComponentImport) -> anyhow::Result<()> {
        let name = import.name.name;
        if is_idle(name) {
            self.instances.remove(name.to_owned());
            return Ok(());
        }
        let mut section = ComponentImportSection::new();
        section.import(import.name, self.component_type_ref(import.ty)?);
        self.out.section(&section);
        self.keep(import.ty.kind());
        Ok(())
    }

    fn alias(&mut self, alias: ComponentAlias) -> anyhow::Result<()> {
        match alias {
            ComponentAlias::InstanceExport { kind, instance_index, name } => {
                if let Some(interface) = self.instances.gone(instance_index).cloned() {
                    let what = format!("{interface} {name}");
                    match kind {
                        ComponentExternalKind::Func => self.functions.remove(what),
                        ComponentExternalKind::Type => self.component_types.remove(what),
                        _ => bail!("{what} is neither a function nor a type"),
                    }
                    return Ok(());
                }
                self.keep(kind);
            }
            ComponentAlias::CoreInstanceExport { kind: ExternalKind::Func, .. } => self.core_functions += 1,
            ComponentAlias::Outer { kind: ComponentOuterAliasKind::Type, .. } => self.component_types.keep(),
            ComponentAlias::CoreInstanceExport { .. } | ComponentAlias::Outer { .. } => {}
        }
        let alias = self.component_alias(alias)?;
        self.write_alias(alias);
        Ok(())
    }

    fn write_alias(&mut self, alias: Alias) {
        let mut section = ComponentAliasSection::new();
        section.alias(alias);
        self.out.section(&section);
    }

    fn canonical(&mut self, function: CanonicalFunction) -> anyhow::Result<()> {
        match &function {
            CanonicalFunction::Lift { .. } => self.functions.keep(),
            CanonicalFunction::Lower { func_index, options } => {
                if let Some(function) = self.functions.gone(*func_index) {
                    return self.stub(function.clone(), Answer::of(function), options);
                }
            }
            CanonicalFunction::ResourceDrop { resource } => {
                if let Some(ty) = self.component_types.gone(*resource) {
                    let stub = format!("{ty} drop");
                    return self.stub(stub, Answer::Refused, &[]);
                }
            }
            _ => {}
        }
        self.core_functions += u32::from(!matches!(function, CanonicalFunction::Lift { .. }));
        let mut section = CanonicalFunctionSection::new();
        self.parse_component_canonical(&mut section, function)?;
        self.out.section(&section);
        Ok(())
    }

    /// Puts a stub where a core function was.
    fn stub(&mut self, name: String, answer: Answer, options: &[CanonicalOption]) -> anyhow::Result<()> {
        let instance = match answer {
            Answer::Refused => REFUSING,
            Answer::Empty | Answer::None => {
                self.answering(options).with_context(|| format!("cannot answer {name}"))?
            }
        };
        self.write_alias(Alias::CoreInstanceExport { instance, kind: ExportKind::Func, name: &name });
        let signature =
            self.types[self.types.as_ref().core_function_at(self.core_functions)].unwrap_func().clone();
        self.stubs.add(name, signature, answer);
        self.core_functions += 1;
        Ok(())
    }

    /// The instance that answers a caller with these options; made for the first one.
    fn answering(&mut self, options: &[CanonicalOption]) -> anyhow::Result<u32> {
        let memory = options.iter().find_map(|option| match option {
            CanonicalOption::Memory(memory) => Some(*memory),
            _ => None,
        });
        let memory = memory.context("its caller has no memory")?;
        match self.answering {
            Some((known, instance)) if known == memory => return Ok(instance),
            Some(_) => bail!("its caller has another memory than the rest"),
            None => {}
        }
        let mut section = InstanceSection::new();
        section.export_items([(MEMORY, ExportKind::Memory, memory)]);
        section.instantiate(ANSWERS, [("", ModuleArg::Instance(self.core_instances.add()))]);
        self.out.section(&section);
        let instance = self.core_instances.add();
        self.answering = Some((memory, instance));
        Ok(instance)
    }
}

impl Reencode for Sealer {
    type Error = Infallible;
}

/// Numbers at the outermost level move up. Those inside a type are its own, but for aliases of what is
/// around it.
impl ReencodeComponent for Sealer {
    fn push_depth(&mut self) {
        self.depth += 1;
    }

    fn pop_depth(&mut self) {
        self.depth -= 1;
    }

    fn component_type_index(&mut self, number: u32) -> u32 {
        self.outer_component_type_index(0, number)
    }

    fn outer_component_type_index(&mut self, count: u32, number: u32) -> u32 {
        if count == self.depth { self.component_types.now(number, &mut self.dangling) } else { number }
    }

    fn component_instance_index(&mut self, number: u32) -> u32 {
        if self.depth == 0 { self.instances.now(number, &mut self.dangling) } else { number }
    }

    fn component_func_index(&mut self, number: u32) -> u32 {
        if self.depth == 0 { self.functions.now(number, &mut self.dangling) } else { number }
    }

    fn instance_index(&mut self, number: u32) -> u32 {
        if self.depth == 0 { self.core_instances.now(number, &mut self.dangling) } else { number }
    }

    fn module_index(&mut self, number: u32) -> u32 {
        self.outer_module_index(0, number)
    }

    fn outer_module_index(&mut self, count: u32, number: u32) -> u32 {
        if count == self.depth { number + MODULES } else { number }
    }
}
