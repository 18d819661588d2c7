//! Rules of one's own: the language, what it refuses, and the command.

use std::path::Path;

use hebbian::engine::cpu;
use hebbian::model::{Rule, RuleText, Tensor};
use hebbian::random::{Purpose, Stream};
use hebbian::rule::{Class, Program, TEXTS};
use hebbian::verify;

use crate::common::hebbian;

fn text(trace: &str, more: &str) -> String {
    format!("name = \"mine\"\n{more}\n[trace]\nH = \"{trace}\"\n")
}

fn refusal(text: &str) -> String {
    Program::parse(text).expect_err(text).to_string()
}

#[test]
fn a_fault_is_named_with_its_place() {
    for (trace, more, wanted) in [
        ("H + zeta", "", &["H, line 4, column 10", "zeta", "nearest: z"][..]),
        ("H + x *", "", &["line 4, column 13", "the end"]),
        ("H + (x", "", &["')'"]),
        ("H + min(x)", "", &["','", "2 numbers"]),
        ("H + x y", "", &["an operator or the end", "'y'"]),
        ("H + foo(x)", "", &["unknown function foo"]),
        ("H + tanh", "", &["'(' after the function tanh"]),
        ("H^2.5", "", &["whole number"]),
        ("H^-1", "", &["whole number"]),
        ("H + 1e999", "", &["finite number"]),
        ("H / (0 * H)", "", &["division by what is 0"]),
        ("H + x / H", "", &["division by what is 0"]),
        (
            "H + q",
            "[post]\nq = { start = 0.0, next = \"x\" }",
            &["q, line 3", "x, which a post-synaptic"],
        ),
        ("H + q", "[pre]\nq = { next = \"y * x\" }", &["y, which a pre-synaptic"]),
        ("H + x", "[post]\nq = { next = \"q + y\" }", &["nothing but itself reads"]),
        ("H + x", "[parameters]\nk = { per = \"network\" }", &["a parameter that nothing reads"]),
        ("H + k", "[parameters]\nk = { per = \"layer\" }", &["k"]),
        ("H + m0", "[parameters]\nx = { per = \"network\" }", &["a name that is taken"]),
        ("H + clip", "[parameters]\nclip = { per = \"network\" }", &["a name that is taken"]),
        ("H + H0", "[parameters]\nH0 = { per = \"network\" }", &["a name that is taken"]),
        (
            "H + k * q",
            "[parameters]\nk = { per = \"neuron\" }\n[pre]\nq = { next = \"k * x\" }",
            &["per neuron in a [pre] equation and in another"],
        ),
        ("H", "[nonsense]\na = 1", &["nonsense"]),
        ("H", "colour = \"red\"", &["colour"]),
    ] {
        let message = refusal(&text(trace, more));
        for word in wanted {
            assert!(message.contains(word), "no '{word}' in {message}");
        }
        assert!(message.contains('^'), "the place is marked: {message}");
    }
    assert!(refusal("name = \"a\"\n[trace]\nG = \"x\"\n").contains("no equation of H"));
    let deep = format!("H + {}x{}", "(".repeat(65), ")".repeat(65));
    assert!(refusal(&text(&deep, "")).contains("flatter"));
    let flat = format!("H + {}x{}", "(".repeat(64), ")".repeat(64));
    Program::parse(&text(&flat, "")).unwrap();
    let long = format!("H{}", " + x".repeat(1100));
    assert!(refusal(&text(&long, "")).contains("4096"));
    let many = (0..17).map(|k| format!("p{k} = {{ per = \"network\" }}\n")).collect::<String>();
    assert!(refusal(&text("H", &format!("[parameters]\n{many}"))).contains("17 parameters"));
    let traces =
        "name = \"a\"\n[trace]\nH = \"A+B+C+D\"\nA = \"H\"\nB = \"H\"\nC = \"H\"\nD = \"H\"\n";
    assert!(refusal(traces).contains("5 traces"));
}

#[test]
fn words_of_shaders_line_breaks_and_powers_are_allowed() {
    let program = Program::parse(
        "name = \"a\"\n[parameters]\nfn = { per = \"network\", init = 2.0 }\nvar = { per = \"pre\" }\n\
         [trace]\nH = \"\"\"\nH + fn\n  * -x^2 * y\n  + 3E-2 * var\"\"\"\n",
    )
    .unwrap();
    assert_eq!(program.equations(), ["H' = H + fn * -x^2 * y + 0.03 * var"]);
    assert!(matches!(program.class(), Class::General(_)));
}

#[test]
fn classes_are_proved_from_the_text() {
    let class = |trace: &str| Program::parse(&text(trace, "")).unwrap().class();
    for trace in ["H", "0.9 * H + x * tanh(y) / (1 + z^2)", "H * (y + 2) + 1", "H + max(y, z) * x"]
    {
        assert_eq!(class(trace), Class::Affine, "{trace}");
    }
    assert_eq!(class("clip(H + x * y, -1, 1)"), Class::Clipped);
    for (trace, why) in [
        ("H + x * x", "the product x * x"),
        ("H + r * x", "r"),
        ("H - H * x", "the product H * x"),
        ("tanh(H) + x", "tanh(H)"),
        ("H / (1 + x^2)", "not linear"),
        ("clip(H, -y, 1)", "not linear"),
    ] {
        match class(trace) {
            Class::General(found) => assert!(found.contains(why), "{trace}: {found}"),
            other => panic!("{trace}: {other:?}"),
        }
    }
}

#[test]
fn nested_functions_take_no_longer_than_their_text() {
    let (mut deep, mut wide) = ("y".to_string(), "y".to_string());
    for _ in 0..60 {
        deep = format!("relu({deep})");
        wide = format!("clip({wide}, -1, 1)");
    }
    let program = Program::parse(&text(&format!("H + x * ({deep} + {wide})"), "")).unwrap();
    assert_eq!(program.class(), Class::Affine);
    assert!(!program.equations()[0].is_empty());
    // of connections, as an engine takes it apart
    let mut deep = "H + x * y".to_string();
    for _ in 0..30 {
        deep = format!("clip(relu({deep}), -1, 1)");
    }
    let program = Program::parse(&text(&deep, "")).unwrap();
    assert!(!program.lower(&[]).traces.is_empty());
}

#[test]
fn large_numbers_that_a_choice_or_a_quotient_leaves_out_make_no_nan() {
    use crate::random_case::{Kind, PLAIN, RandomCase};
    let mut stream = crate::random_case::stream(107);
    for trace in [
        "0.5 * H + 0.1 * x / (1 + exp(200 * (1 + abs(z))))",
        "clip(0.5 * H + 0.1 * x * y, -0.1, 0.1) + 0.001 * clip(x * (1000 * y)^20, -1, 1)",
        "0.9 * H + 0.1 * (x - y) * (x - y)",
    ] {
        // no x is 0
        let kind = Kind { start: true, ..PLAIN };
        let mut case = RandomCase::new(&kind, (1, 2, 4, 5, 5), &mut stream);
        case.network.rule = Rule::Custom;
        let rule = RuleText::new(Program::parse(&text(trace, "")).unwrap(), false);
        case.network.stages.rule = Some(rule);
        let mut parameters = hebbian::model::Parameters::<f64>::zeros(&case.network);
        for tensor in [Tensor::W, Tensor::Alpha] {
            let values = case.parameters.get(0, tensor).to_vec();
            parameters.get_mut(0, tensor).copy_from_slice(&values);
        }
        case.parameters = parameters;
        let exact = hebbian::engine::reference::run(
            &case.network,
            &case.parameters,
            &case.episodes,
            crate::common::ALL,
        );
        let exact = crate::around::named(&exact.unwrap());
        let (parameters, episodes) = case.single();
        let mut engine = cpu::open::<f32>(&case.network).unwrap();
        engine.set_parameters(&parameters).unwrap();
        let found = engine.evaluate(&episodes, crate::common::ALL).unwrap();
        for ((name, found), (_, exact)) in crate::around::named(&found).iter().zip(&exact) {
            assert!(found.iter().all(|v| v.is_finite()), "{trace}, {name}: {found:?}");
            let error = crate::common::relative_error(found, exact);
            assert!(error < 2e-5, "{trace}, {name}: {error:.1e}");
        }
    }
}

#[test]
fn parameters_of_a_rule_are_one_number_of_what_its_text_says() {
    let mut network = crate::random_case::RandomCase::new(
        &crate::random_case::PLAIN,
        (1, 1, 1, 3, 3),
        &mut crate::random_case::stream(1),
    )
    .network;
    network.rule = Rule::Custom;
    let mut rule = RuleText::new(Program::built_in("bcm").unwrap(), false);
    rule.per[1] = hebbian::rule::Per::Connection;
    network.stages.rule = Some(rule);
    let message = cpu::open::<f32>(&network).err().unwrap().to_string();
    assert!(message.contains("tau") && message.contains("Connection"), "{message}");
}

/// Draws an expression over the grammar.
fn expression(stream: &mut Stream, names: &[&str], depth: u32) -> String {
    let mut inner = || expression(stream, names, depth.saturating_sub(1));
    let (a, b) = if depth > 0 { (inner(), inner()) } else { (String::new(), String::new()) };
    let name = names[stream.below(u32::try_from(names.len()).unwrap()) as usize];
    if depth == 0 || stream.below(5) == 0 {
        return if stream.below(4) == 0 {
            format!("{:.2}", 0.1 + f64::from(stream.below(90)) / 100.0)
        } else {
            name.into()
        };
    }
    match stream.below(14) {
        0 | 1 => format!("({a} + {b})"),
        2 => format!("({a} - {b})"),
        3..=5 => format!("{a} * {b}"),
        6 => format!("{a} / (2 + ({b})^2)"),
        7 => format!("tanh({a})"),
        8 => format!("sigmoid({a})"),
        9 => format!("exp(-({a})^2)"),
        10 => format!("min({a}, {b})"),
        11 => format!("clip({a}, -0.7, {name})"),
        12 => format!("relu({a})"),
        _ => format!("-{name}^2 * abs({b})"),
    }
}

/// A text that reads all it declares.
pub(crate) fn drawn(stream: &mut Stream) -> String {
    let mut trace = |names: &[&str]| expression(stream, names, 3);
    let h = trace(&["x", "y", "z", "H", "F", "r", "m", "u", "v", "k", "c"]);
    let f = trace(&["x", "y", "H", "F", "u", "v", "k", "n"]);
    let v = trace(&["y", "z", "v", "r", "m", "n", "k"]);
    let u = trace(&["x", "u", "k"]);
    format!(
        "name = \"drawn\"\n[parameters]\nk = {{ per = \"network\", init = 0.3 }}\n\
         n = {{ per = \"neuron\", init = 0.2 }}\nc = {{ per = \"connection\", init = 0.1 }}\n\
         [post]\nv = {{ start = 0.1, next = \"0.5 * v + 0.3 * tanh({v}) + 0 * n\" }}\n\
         [pre]\nu = {{ start = 0.2, next = \"0.5 * u + 0.3 * tanh({u}) + 0 * k\" }}\n\
         [trace]\nH = \"0.8 * H + 0.1 * tanh({h}) + 0.01 * F * c * u * v * k * n\"\n\
         F = \"0.7 * F + 0.1 * tanh({f}) + 0.01 * H * x\"\n"
    )
}

#[test]
fn drawn_rules_have_the_gradient_of_finite_differences() {
    let mut stream = Stream::new(83, Purpose::Training, 0, 0);
    let mut worst = (0.0, String::new());
    for _ in 0..60 {
        let text = drawn(&mut stream);
        let rule = RuleText::new(Program::parse(&text).unwrap(), false);
        let off = verify::finite_differences(&rule).unwrap();
        assert!(off < verify::TOLERANCE, "{off:.1e} for\n{text}");
        if off > worst.0 {
            worst = (off, text);
        }
    }
    println!("60 rules: worst {:.2} of {:e}", worst.0 / verify::TOLERANCE, verify::TOLERANCE);
}

/// What is taken of mutated texts, of which HEBBIAN_MUTATIONS asks for more, has the gradient of finite
/// differences.
#[test]
fn no_mutated_text_panics_or_has_another_gradient() {
    let mut stream = Stream::new(89, Purpose::Training, 0, 0);
    let seeds: Vec<String> =
        TEXTS.iter().map(|(_, text)| (*text).into()).chain([drawn(&mut stream)]).collect();
    let letters: Vec<u8> = b"xyzrmHE()+-*/^,.0159 \"'{}[]=\n\\ab_e".to_vec();
    let asked = std::env::var("HEBBIAN_MUTATIONS").ok();
    let n = asked.map_or(20_000, |n| n.parse().expect("HEBBIAN_MUTATIONS is a number"));
    let (mut taken, mut refused, mut wrong) = (0, 0, Vec::new());
    for k in 0..n {
        let mut bytes = seeds[k % seeds.len()].clone().into_bytes();
        for _ in 0..=stream.below(4) {
            let at = stream.below(u32::try_from(bytes.len()).unwrap()) as usize;
            let letter = letters[stream.below(u32::try_from(letters.len()).unwrap()) as usize];
            match stream.below(4) {
                0 => _ = bytes.remove(at),
                1 => bytes[at] = letter,
                2 => bytes.insert(at, letter),
                _ => {
                    let to = stream.below(u32::try_from(bytes.len()).unwrap()) as usize;
                    bytes.swap(at, to);
                }
            }
        }
        match Program::parse(&String::from_utf8_lossy(&bytes)) {
            Ok(program) => {
                taken += 1;
                assert!(!program.class().name().is_empty());
                assert!(!program.derivatives().is_empty() || program.equations().len() == 1);
                if taken % 5 == 0 {
                    match verify::finite_differences(&RuleText::new(program.clone(), false)) {
                        Ok(off) if off < verify::TOLERANCE => {}
                        other => wrong.push((format!("{other:?}"), program.text().to_string())),
                    }
                }
            }
            Err(error) => {
                refused += 1;
                assert_eq!(error.exit_code(), 2);
            }
        }
    }
    println!("{taken} taken, {refused} refused; every fifth against finite differences");
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(taken > 1000 && refused > 1000);
}

#[test]
fn a_text_of_a_built_in_rule_is_that_rule() {
    use crate::random_case::{Kind, PLAIN, RandomCase};
    use hebbian::model::{Parameters, Stages};
    let mut stream = crate::random_case::stream(97);
    for rule in Rule::ALL {
        let kind = Kind { rule, ..PLAIN };
        let case = RandomCase::new(&kind, (2, 3, 9, 6, 6), &mut stream);
        let program = Program::built_in(rule.name()).unwrap();
        let stages = Stages { rule: Some(RuleText::new(program, false)), ..Stages::default() };
        let network =
            hebbian::model::Network { rule: Rule::Custom, stages, ..case.network.clone() };
        let mut parameters = Parameters::<f64>::zeros(&network);
        for p in 0..2 {
            for entry in parameters.layout().clone().entries() {
                let from = match entry.tensor {
                    Tensor::OfRule(_) => Tensor::Eta,
                    other => other,
                };
                let values = case.parameters.get(p, from).to_vec();
                parameters.get_mut(p, entry.tensor).copy_from_slice(&values);
            }
        }
        let run = |network: &_, parameters: &Parameters<f64>| {
            let mut engine = cpu::open::<f64>(network).unwrap();
            engine.set_parameters(parameters).unwrap();
            let out = engine.evaluate(&case.episodes, crate::common::ALL).unwrap();
            let g = out.gradients.unwrap();
            let tensor =
                |tensor| (0..2).flat_map(|p| g.parameters.get(p, tensor)).copied().collect();
            let tensors: Vec<Vec<f64>> =
                Tensor::ALL.into_iter().chain([Tensor::OfRule(0)]).map(tensor).collect();
            [out.loss, out.y, out.h, tensors.concat(), g.input, g.y0]
        };
        let mut wanted = run(&case.network, &case.parameters);
        let mut found = run(&network, &parameters);
        for all in [&mut wanted, &mut found] {
            // eta stands in another place among a text's parameters
            all[3].sort_by(f64::total_cmp);
        }
        let (found, wanted) = (found.concat(), wanted.concat());
        let error = crate::common::relative_error(&found, &wanted);
        assert!(error < 1e-12, "{rule:?}: {error:.1e}");
    }
}

#[test]
fn the_command_lists_shows_and_checks() {
    let out = |arguments: &[&str]| {
        let answer = hebbian(arguments);
        (answer.status.code(), String::from_utf8(answer.stdout).unwrap())
    };
    let (code, list) = out(&["rule", "list"]);
    assert_eq!(code, Some(0));
    for (name, text) in TEXTS {
        assert!(list.contains(name), "{name}");
        let (code, shown) = out(&["rule", "show", name]);
        assert_eq!((code, shown.trim()), (Some(0), text.trim()));
        let (code, answer) = out(&["rule", "check", name, "--json"]);
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((code, &answer["right"]), (Some(0), &true.into()), "{name}");
    }
    assert_eq!(out(&["rule", "show", "ojaa"]).0, Some(2));
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("rules.svg");
    assert_eq!(out(&["rule", "draw", "--out", picture.to_str().unwrap()]).0, Some(0));
    let documented = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rules.svg");
    let [drawn, documented] = [picture, documented].map(|file| std::fs::read(file).unwrap());
    assert!(drawn == documented, "docs/rules.svg is of other rules: hebbian rule draw draws it");
}

#[test]
fn a_run_keeps_the_text_of_its_rule() {
    let folder = tempfile::tempdir().unwrap();
    let [file, run] = ["mine.toml", "run"].map(|name| folder.path().join(name));
    let text = text(
        "0.9 * H + eta * x * y * (1 - y * y)",
        "[parameters]\neta = { per = \"network\", init = 0.02 }",
    );
    std::fs::write(&file, text).unwrap();
    let [file, out] = [&file, &run].map(|path| path.to_str().unwrap());
    let quiet = ["--device", "cpu", "--quiet", "--json"];
    let small = ["train", "patterns", "--set", "task.bits=10", "--updates", "4", "--batch", "2"];
    let done = |arguments: &[&str]| {
        let answer = hebbian(&[arguments, &quiet].concat());
        assert_eq!(answer.status.code(), Some(0), "{}", String::from_utf8_lossy(&answer.stderr));
    };
    done(&[&small[..], &["--rule", file, "--out", out]].concat());
    std::fs::remove_file(file).unwrap();
    assert!(std::fs::read_to_string(run.join("config.toml")).unwrap().contains("1 - y * y"));
    done(&["train", "--resume", out, "--updates", "6"]);
    done(&["eval", out]);
    let stimulus = folder.path().join("a.txt");
    std::fs::write(&stimulus, "1010101010").unwrap();
    done(&["recall", out, "present", stimulus.to_str().unwrap()]);
    done(&["recall", out, "complete", stimulus.to_str().unwrap(), "--hide", "right"]);
    done(&["recall", out, "status"]);
    // a rule that keeps variables, which its memory keeps too
    let bcm = folder.path().join("bcm");
    done(&[&small[..], &["--rule", "bcm", "--out", bcm.to_str().unwrap()]].concat());
    done(&["recall", bcm.to_str().unwrap(), "present", stimulus.to_str().unwrap()]);
    let memory = crate::common::load(&bcm.join("memory.safetensors"));
    assert!(memory["rule.theta"].iter().any(|&theta| theta != 0.0));
    let refused = hebbian(&["train", "patterns", "--rule", "nowhere.toml"]);
    assert_eq!(refused.status.code(), Some(2));
}
