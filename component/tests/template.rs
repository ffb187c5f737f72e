//! Chat templates against transformers' own renderings, and templates that want to do harm.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use wafer_component::error::Error;
use wafer_component::template::{Message, Template};

fn user(content: &str) -> Message {
    Message { role: "user".into(), content: Some(content.into()), ..Message::default() }
}

fn render(source: &str, messages: &[Message]) -> Result<String, Error> {
    Template::new(source, "<s>", "</s>")?.render(messages, None, true, &Map::new())
}

/// Renders `source` with one message, "hi".
fn check(source: &str, expected: &str) {
    let found = render(source, &[user("hi")]).unwrap_or_else(|error| panic!("{source}: {error}"));
    assert_eq!(found, expected, "{source}");
}

#[test]
fn the_renderings_of_transformers() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/testdata/chat-templates");
    if !data.is_dir() {
        assert!(std::env::var_os("CI").is_none(), "CI needs the test data at {}", data.display());
        eprintln!("ignored: no test data at {}", data.display());
        return;
    }
    let goldens: Value = serde_json::from_slice(&std::fs::read(data.join("goldens.json")).unwrap()).unwrap();
    assert_eq!(goldens["clock"], "2025-07-10T12:00:00");
    let clock = || UNIX_EPOCH + Duration::from_secs(1_752_148_800);
    let cases = goldens["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 175);
    let mut wrong = Vec::new();
    for case in cases {
        let file = case["template"].as_str().unwrap();
        let source = std::fs::read_to_string(data.join("templates").join(file)).unwrap();
        let mut context = goldens["contexts"][case["context"].as_str().unwrap()].as_object().unwrap().clone();
        let messages: Vec<Message> = serde_json::from_value(context.remove("messages").unwrap()).unwrap();
        let tools = context.remove("tools");
        let generation_prompt = context.remove("add_generation_prompt").unwrap().as_bool().unwrap();
        let bos = context.remove("bos_token").unwrap();
        let eos = context.remove("eos_token").unwrap();
        let template =
            Template::with_clock(&source, bos.as_str().unwrap(), eos.as_str().unwrap(), clock).unwrap();
        let found = template.render(&messages, tools.as_ref(), generation_prompt, &context);
        let what = format!("{file} with {}", case["context"]);
        match (found, case["output"].as_str(), case["error"].as_str()) {
            (Ok(found), Some(expected), _) if found == expected => {}
            (Err(Error::Invalid(found)), None, Some(expected))
                if !expected.starts_with("TemplateError: ")
                    || expected == format!("TemplateError: {found}") => {}
            (Err(Error::Model(_)), None, Some(expected)) if expected.contains("No filter named") => {}
            (found, _, _) => {
                wrong.push(format!("{what}:\n  found {found:?}\n  not   {}{}", case["output"], case["error"]))
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn what_python_and_transformers_do() {
    // Python's own `json.dumps` gave the expectations.
    let json = r#"{% set v = {'b': [1, 2.0, true, none], 'a': 'é\n"\\\u{1f}🦙'} %}"#;
    let cases = [
        ("{{ v|tojson }}", r#"{"b": [1, 2.0, true, null], "a": "é\n\"\\\u001f🦙"}"#),
        (
            "{{ v|tojson(ensure_ascii=true) }}",
            r#"{"b": [1, 2.0, true, null], "a": "\u00e9\n\"\\\u001f\ud83e\udd99"}"#,
        ),
        (
            "{{ v|tojson(sort_keys=true, separators=(',', ':')) }}",
            r#"{"a":"é\n\"\\\u001f🦙","b":[1,2.0,true,null]}"#,
        ),
        ("{{ v.b|tojson(indent=2) }}", "[\n  1,\n  2.0,\n  true,\n  null\n]"),
        ("{{ [[], {}, {'x': []}]|tojson(indent=1) }}", "[\n [],\n {},\n {\n  \"x\": []\n }\n]"),
        ("{{ [1e16, 1e-5, 0.1, -0.0, 123456789.5]|tojson }}", "[1e+16, 1e-05, 0.1, -0.0, 123456789.5]"),
        ("{{ '<a href=\"&\">'|tojson }}", r#""<a href=\"&\">""#),
    ];
    for (source, expected) in cases {
        check(&format!("{}{source}", json.replace(r"\u{1f}", "\u{1f}")), expected);
    }
    let cases = [
        ("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", "<s>hi</s>"),
        ("{{ tools is none }} {{ documents is none }} {{ nothing is defined }}", "True True False"),
        (
            "{{ none is iterable }} {{ 'a' is sequence }} {{ {} is sequence }} {{ 1 is sequence }}",
            "False True True False",
        ),
        ("{% if true %}\n  x\n{% endif %}\n", "  x\n"),
        ("a\n", "a"),
        ("a {%- generation -%} b {%- endgeneration %} c", "ab c"),
        ("{% generation %}\nx\n{% endgeneration %}\ny", "x\ny"),
        ("{{ 'a-b'.split('-')[1] ~ ' x '.strip() ~ 'ab'.upper() }}", "bxAB"),
        ("{{ 'x' in 'xyz' and 'xyz'.startswith('xy') and not 'a'.endswith('b') }}", "True"),
        (
            "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{% if loop.last %}!{% endif %}{% endfor %}",
            "a1b2!",
        ),
        (
            "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "0134",
        ),
        (
            "{% set ns = namespace(n=0) %}{% for i in [1, 2, 3] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
            "6",
        ),
        ("{{ 'ab' * 3 }}{{ 2 * 3 }}{{ 0.5 * 3 }}{{ [1] * 2 }}", "ababab61.5[1, 1]"),
        ("{{ 'a\nb\n\nc'|indent(2) }}|{{ 'a\nb'|indent(width=1, first=true) }}", "a\n  b\n\n  c| a\n b"),
        (
            "{{ ['a', 'b']|join(', ') }}{{ [{'x': 1}, {'x': 2}]|join('-', attribute='x') }}{{ '/'.join(['a', 'b']) }}",
            "a, b1-2a/b",
        ),
        (
            "{% macro m(a, b='y') %}{{ a }}{{ b }}{% endmacro %}{{ m('x') }}{% set c %}{{ m(1, 2) }}{% endset %}{{ c }}",
            "xy12",
        ),
        ("{{ '%s is %d'|format('a', 1) }} {{ '{} and {}'.format(1, 'b') }}", "a is 1 1 and b"),
        (
            "{{ messages[0].tool_calls is defined }} {{ messages[0]['content'][-1:] }} {{ messages|length }}",
            "False i 1",
        ),
    ];
    for (source, expected) in cases {
        check(source, expected);
    }
}

#[test]
fn arguments_reach_the_template() {
    let template = Template::new(
        "{{ enable_thinking }}{{ bos_token }}{{ tools[0].function.name }}{{ add_generation_prompt }}",
        "<s>",
        "",
    )
    .unwrap();
    let kwargs =
        json!({"enable_thinking": false, "bos_token": "B", "messages": 1, "add_generation_prompt": true});
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let text = template.render(&[user("hi")], Some(&tools), false, kwargs.as_object().unwrap()).unwrap();
    assert_eq!(text, "FalseBfFalse");
}

#[test]
fn errors_say_whose_fault_it_is() {
    let invalid = |source: &str| match render(source, &[user("hi")]) {
        Err(Error::Invalid(message)) => message,
        other => panic!("{source}: {other:?}"),
    };
    assert_eq!(invalid("{{ raise_exception('no ' ~ messages[0].role) }}"), "no user");
    assert_eq!(
        invalid("{% macro m() %}{{ raise_exception('deep') }}{% endmacro %}{% set x = m() %}"),
        "deep"
    );
    for source in [
        "{{ messages[0].tool_calls[0] }}",
        "{{ 'a' + 1 }}",
        "{{ messages[9].content }}",
        "{{ [].append(1) }}",
    ] {
        let message = invalid(source);
        assert!(message.starts_with("the chat template cannot render this conversation: "), "{message}");
    }
    for source in ["{% if %}", "{{ 'a'|from_json }}", "{{ f() }}", "{% for", "{{ 1 is odder }}"] {
        match render(source, &[user("hi")]) {
            Err(Error::Model(message)) => {
                assert!(message.starts_with("the chat template is at fault: "), "{message}")
            }
            other => panic!("{source}: {other:?}"),
        }
    }
}

/// Renders with as much stack as wasmtime gives to a component.
fn on_a_small_stack(source: String) -> Result<String, Error> {
    let thread = std::thread::Builder::new().stack_size(512 << 10);
    thread.spawn(move || render(&source, &[user("hi")])).unwrap().join().unwrap()
}

#[test]
fn what_is_within_the_limits_fits_the_stack() {
    let macros = |levels: usize| {
        let recursive = "{% macro m(n) %}{% if n %}{{ ('x' ~ m(n - 1))|trim }}{% endif %}{% endmacro %}";
        format!("{recursive}{{{{ m({levels}) }}}}")
    };
    let deep = |levels: usize| {
        format!(
            "{{% set ns = namespace(l=[]) %}}{{% for i in range({levels}) %}}{{% set ns.l = [ns.l] %}}{{% endfor %}}\
             {{{{ ns.l|tojson|length }}}} {{{{ ns.l == ns.l }}}} {{{{ (ns.l ~ '')|length }}}}"
        )
    };
    let cases = [
        ("a sum", "{{ 1".to_owned() + &" + 1".repeat(250) + " }}", "251"),
        ("a concatenation", "{% set a = 'x' %}{{ (a".to_owned() + &" ~ a".repeat(240) + ")|length }}", "241"),
        ("filters", "{{ 'x'".to_owned() + &"|trim".repeat(250) + " }}", "x"),
        ("and", "{% set a = 1 %}{{ a".to_owned() + &" and a".repeat(250) + " }}", "1"),
        ("brackets", "{{ ".to_owned() + &"(".repeat(70) + "1" + &")".repeat(70) + " }}", "1"),
        ("blocks", "{% if 1 %}".repeat(100) + "x" + &"{% endif %}".repeat(100), "x"),
        ("loops", "{% for i in [1] %}".repeat(60) + "x" + &"{% endfor %}".repeat(60), "x"),
        ("elif", "{% if 0 %}".to_owned() + &"{% elif nothing %}".repeat(128) + "{% else %}x{% endif %}", "x"),
        ("macros", macros(25), &"x".repeat(25)),
        ("lists", deep(60), "122 True 122"),
    ];
    for (what, source, expected) in cases {
        assert_eq!(
            on_a_small_stack(source).unwrap_or_else(|error| panic!("{what}: {error}")),
            expected,
            "{what}"
        );
    }
}

/// Every case would take hours or terabytes if it ran.
#[test]
fn harmful_templates_end_in_an_error() {
    let double = |statement: &str| format!("{{% set a = 'xy' %}}{}{{{{ a|length }}}}", statement.repeat(60));
    let in_loop = |body: &str| {
        format!(
            "{{% set ns = namespace(a='xy', l=[1], n=0) %}}{{% for i in range(90000) %}}{body}{{% endfor %}}"
        )
    };
    let cases = [
        ("endless recursion", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".to_owned()),
        (
            "two macros in turn",
            "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}".into(),
        ),
        (
            "exponential recursion",
            "{% macro m(n) %}{% if n %}{{ m(n - 1) ~ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}".into(),
        ),
        ("nested loops", "{% for a in range(99999) %}".repeat(5) + &"{% endfor %}".repeat(5)),
        ("long output", in_loop("{% for j in range(90000) %}x{% endfor %}")),
        ("raw text in a loop", in_loop(&"some text, ".repeat(999))),
        (
            "raw text in a captured loop",
            format!("{{% set x %}}{}{{% endset %}}", in_loop(&"some text, ".repeat(999))),
        ),
        ("a huge product", "{{ 'x' * 99999999 }}".into()),
        ("a larger product", "{{ 'x' * 9223372036854775807 }}".into()),
        (
            "products of products",
            "{% set a = 'x' * 9999 %}{% set a = a * 9999 %}{% set a = a * 9999 %}".into(),
        ),
        ("a product of lists", "{{ ([1] * 999999999)|length }}".into()),
        ("a product of tuples", "{{ ((1, 2) * 49999999)|length }}".into()),
        ("doubling with ~", double("{% set a = a ~ a %}")),
        ("doubling with +", double("{% set a = a + a %}")),
        ("doubling by capture", double("{% set a %}{{ a }}{{ a }}{% endset %}")),
        ("doubling by join", double("{% set a = [a, a]|join %}")),
        ("doubling by replace", double("{% set a = a|replace('x', a) %}")),
        ("doubling by the method replace", double("{% set a = a.replace('x', a) %}")),
        ("doubling by counted replace", double("{% set a = a.replace('x', a, 99999999) %}")),
        ("doubling by format", double("{% set a = '{}{}'.format(a, a) %}")),
        ("doubling by the filter format", double("{% set a = '%s%s'|format(a, a) %}")),
        ("doubling by indent", double("{% set a = ('\n' ~ a)|indent(a, true) %}")),
        ("doubling by a macro", double("{% macro m(a) %}{{ a }}{{ a }}{% endmacro %}{% set a = m(a) %}")),
        ("doubling in a namespace", in_loop("{% set ns.a = ns.a ~ ns.a %}")),
        ("doubling lists", in_loop("{% set ns.l = ns.l + ns.l %}") + "{{ ns.l|length }}"),
        ("doubling as a tree", in_loop("{% set ns.l = [ns.l, ns.l] %}")),
        ("doubling maps", in_loop("{% set ns.l = {'a': ns.l, 'b': ns.l} %}")),
        ("doubling by tojson", double("{% set a = (a ~ '\"')|tojson %}")),
        ("deep lists", in_loop("{% set ns.l = [ns.l] %}")),
        ("deep maps by dict", in_loop("{% set ns.l = dict(a=ns.l) %}")),
        ("a namespace in itself", "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}".into()),
        ("a namespace in a list in itself", "{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns }}".into()),
        ("a wide field", "{{ '{:>999999999}'.format('x') }}".into()),
        ("a wide field, by the filter", "{{ '%999999999d'|format(1) }}".into()),
        ("a wide field, by an argument", "{{ '%*d'|format(999999999, 1) }}".into()),
        ("a wide time", "{{ strftime_now('%999999999Y') }}".into()),
        ("a wide indentation", "{{ 'x\ny'|indent(999999999) }}".into()),
        ("a wide batch", "{{ [1]|batch(999999999, 'x')|list }}".into()),
        ("a wide slice", "{{ [1]|slice(999999999)|list }}".into()),
        (
            "many scans",
            in_loop(
                "{% if ns.n == 0 %}{% set ns.a = 'x' * 8000000 %}{% set ns.n = 1 %}{% endif %}{% if 'y' in ns.a %}{% endif %}",
            ),
        ),
        (
            "many lengths",
            in_loop(
                "{% if ns.n == 0 %}{% set ns.a = 'x' * 8000000 %}{% set ns.n = 1 %}{% endif %}{% if ns.a.count('y') %}{% endif %}",
            ),
        ),
        ("nested parentheses", "{{ ".to_owned() + &"(".repeat(50_000) + "1" + &")".repeat(50_000) + " }}"),
        ("nested lists", "{{ ".to_owned() + &"[".repeat(50_000) + &"]".repeat(50_000) + " }}"),
        ("nested negation", "{{ ".to_owned() + &"not ".repeat(30_000) + "1 }}"),
        ("nested signs", "{{ ".to_owned() + &"-".repeat(50_000) + "1 }}"),
        ("nested blocks", "{% if 1 %}".repeat(6_000) + &"{% endif %}".repeat(6_000)),
        ("nested conditions", "{{ ".to_owned() + &"1 if 1 else ".repeat(9_000) + "1 }}"),
        ("nested macros", "{% macro m() %}".repeat(4_000) + &"{% endmacro %}".repeat(4_000)),
        ("a long sum", "{{ 1".to_owned() + &" + 1".repeat(30_000) + " }}"),
        ("a long chain of attributes", "{{ a".to_owned() + &".a".repeat(50_000) + " }}"),
        ("a long chain of calls", "{{ a".to_owned() + &"()".repeat(50_000) + " }}"),
        ("a long chain of filters", "{{ a".to_owned() + &"|e".repeat(50_000) + " }}"),
        ("a long chain of and", "{{ 1".to_owned() + &" and 1".repeat(20_000) + " }}"),
        ("a long chain of tests", "{{ 1".to_owned() + &" is odd".repeat(15_000) + " }}"),
        ("a long chain behind commas", "{{ 1".to_owned() + &" + (1, 1)".repeat(10_000) + " }}"),
        ("a long row of elif", "{% if a %}".to_owned() + &"{% elif a %}".repeat(9_000) + "{% endif %}"),
        ("many constant products", "{% set a = 'xxxxxxxxxxxxxxxxxxxx' * 99999 %}".repeat(2_000)),
        ("a constant power", "{% set a = 'x' * 10 ** 8 %}".into()),
        ("a constant sum times a sum", "{% set a = 'x' * (9999 + 9999) * (5000 + 4000) %}".into()),
        ("a long source", "x".repeat(1 << 20)),
    ];
    for (what, source) in cases {
        let start = std::time::Instant::now();
        match on_a_small_stack(source) {
            Err(Error::Invalid(message) | Error::Model(message)) => {
                eprintln!("{what}: {message} ({:?})", start.elapsed());
            }
            other => panic!("{what}: {:?}", other.map(|text| text.len())),
        }
    }
}

#[test]
fn the_default_templates() {
    use std::collections::HashMap;
    use wafer_component::tokenizer::Tokenizer;
    use wafer_engine::gguf::{Metadata, Value};

    let strings =
        |items: &[&str]| Value::Array(items.iter().map(|&item| Value::String(item.to_owned())).collect());
    let messages = [
        Message { role: "system".into(), content: Some("Be brief.".into()), ..Message::default() },
        user("hi"),
        Message { role: "assistant".into(), ..Message::default() },
    ];
    let cases = [
        (vec!["<unk>", "<s>", "</s>", "a"], "Be brief.\n\nUser: hi\nAssistant: \nAssistant:"),
        (
            vec!["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"],
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n<|im_start|>assistant\n",
        ),
    ];
    for (pieces, expected) in cases {
        let metadata = Metadata::new(HashMap::from([
            ("tokenizer.ggml.model".to_owned(), Value::String("llama".into())),
            ("tokenizer.ggml.tokens".to_owned(), strings(&pieces)),
        ]));
        let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
        let template = Template::from_gguf(&metadata, &tokenizer).unwrap();
        assert!(template.is_default());
        assert_eq!(template.render(&messages, None, true, &Map::new()).unwrap(), expected);
    }
}
