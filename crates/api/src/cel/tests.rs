use serde_json::json;

use super::*;

fn run(source: &str, object: &serde_json::Value) -> Result<serde_json::Value, String> {
    let program = Program::compile(source, &["self", "oldSelf"]).map_err(|error| error.to_string())?;
    let scope = Scope::new().with("self", Val::json(object));
    let value = program.evaluate(&scope, &mut Budget::new(OBJECT_LIMIT)).map_err(|error| error.to_string())?;
    value.to_json().ok_or_else(|| value.type_name().to_string())
}

#[test]
fn expressions_have_their_values() {
    let object = json!({"n": 3, "f": 1.5, "s": "héllo", "l": [3, 1, 2], "m": {"a": 1, "b-c": 2}, "o": [{"k": "x", "v": 1}, {"k": "y", "v": 2}], "namespace": "ns"});
    for (source, expected) in [
        ("self.n + 2", json!(5)),
        ("self.n > 2 && self.f < 2.0", json!(true)),
        ("self.n == 3.0", json!(true)),
        ("has(self.m.a) && !has(self.m.z)", json!(true)),
        ("self.m['b-c']", json!(2)),
        ("self.m.b__dash__c", json!(2)),
        ("self.__namespace__", json!("ns")),
        ("size(self.s) + self.l.size()", json!(8)),
        ("self.l.exists(x, x > 2)", json!(true)),
        ("self.l.all(x, x > 1)", json!(false)),
        ("self.l.filter(x, x > 1)", json!([3, 2])),
        ("self.l.map(x, x * 2)", json!([6, 2, 4])),
        ("self.o.exists_one(e, e.k == 'x')", json!(true)),
        ("self.o.map(e, e.v).sum()", json!(3)),
        ("self.l.isSorted()", json!(false)),
        ("self.l.max() - self.l.min()", json!(2)),
        ("1 in self.l && 'a' in self.m", json!(true)),
        ("self.m.all(k, k.size() > 0)", json!(true)),
        ("self.?zz.orValue(7)", json!(7)),
        ("self.?m.?a.orValue(7)", json!(1)),
        ("self[?'n'].hasValue()", json!(true)),
        ("optional.of(2).optMap(x, x + 1).value()", json!(3)),
        ("[1, ?self.?zz]", json!([1])),
        ("{?'a': self.?zz, 'b': 1}", json!({"b": 1})),
        ("self.l.all(i, v, i < v)", json!(false)),
        ("self.l.transformList(i, v, i + v)", json!([3, 2, 4])),
        ("self.m.transformMap(k, v, v + 1)", json!({"a": 2, "b-c": 3})),
        ("cel.bind(x, self.n, x * x)", json!(9)),
        ("'abc'.matches('^a.c$')", json!(true)),
        ("'abc 123'.find('[0-9]+')", json!("123")),
        ("'a,b,c'.split(',')", json!(["a", "b", "c"])),
        ("['a', 'b'].join('-')", json!("a-b")),
        ("'Abc'.lowerAscii().replace('b', 'x').substring(1)", json!("xc")),
        ("'%s has %d, %.2f'.format(['x', 3, 1.5])", json!("x has 3, 1.50")),
        ("'hello'.indexOf('l') + 'hello'.lastIndexOf('l')", json!(5)),
        ("' x '.trim().charAt(0)", json!("x")),
        ("sets.contains([1, 2], [2]) && sets.intersects([1], [1]) && sets.equivalent([1, 2], [2, 1, 1])", json!(true)),
        ("quantity('1Gi').isGreaterThan(quantity('1000Mi'))", json!(true)),
        ("quantity('1').add(quantity('500m')).compareTo(quantity('1500m'))", json!(0)),
        ("isQuantity('x')", json!(false)),
        ("url('https://u@h:81/p?a=1&a=2').getHostname() + url('https://h:81/').getPort()", json!("h81")),
        ("url('https://h/?a=1&a=2').getQuery()", json!({"a": ["1", "2"]})),
        ("isURL('x y')", json!(false)),
        ("cidr('10.0.0.0/8').containsIP('10.1.1.1') && ip('127.0.0.1').isLoopback()", json!(true)),
        ("ip('::1').family()", json!(6)),
        ("ip.isCanonical('::0')", json!(false)),
        ("semver('1.2.3-rc.1').isLessThan(semver('1.2.3'))", json!(true)),
        ("isSemver('v1.0', true)", json!(true)),
        ("format.dns1123Label().validate('A').hasValue()", json!(true)),
        ("!format.named('uuid').value().validate('5').hasValue()", json!(false)),
        ("duration('90m').getHours()", json!(1)),
        ("timestamp('2026-01-02T03:04:05Z').getFullYear()", json!(2026)),
        ("timestamp('2026-01-02T00:00:00Z') - timestamp('2026-01-01T00:00:00Z') == duration('24h')", json!(true)),
        ("int('5') + int(2.9)", json!(7)),
        ("string(1) + string(true)", json!("1true")),
        ("type(1) == int", json!(true)),
        ("b'abc' == bytes('abc')", json!(true)),
        ("true || 1/0 == 1", json!(true)),
        ("1/0 == 1 || true", json!(true)),
        ("false && 1/0 == 1", json!(false)),
        ("[1, 0].exists(x, 1/x == 1)", json!(true)),
        ("self.n == 3 ? 'yes' : 'no'", json!("yes")),
        ("jsonpatch.escapeKey('a/b~c')", json!("a~1b~0c")),
        ("Object{spec: Object.spec{replicas: 1}}", json!({"spec": {"replicas": 1}})),
        ("dyn([1, 'a'])[1]", json!("a")),
        ("-self.n % 2", json!(-1)),
        ("self.o[0].k", json!("x")),
    ] {
        assert_eq!(run(source, &object), Ok(expected), "{source}");
    }
}

#[test]
fn failures_say_what_failed() {
    let object = json!({"n": 3, "l": [1]});
    for (source, expected) in [
        ("self.z", "no such key: z"),
        ("self.l[3]", "index out of bounds: 3"),
        ("1/0", "division by zero"),
        ("'a' + 1", "no such overload"),
        ("9223372036854775807 + 1", "integer overflow"),
        ("optional.none().value()", "optional.none() dereference"),
        ("foo", "compilation failed: ERROR: <input>: undeclared reference to 'foo' (in container '')"),
        ("foo(1)", "compilation failed: ERROR: <input>: undeclared reference to 'foo' (in container '')"),
    ] {
        assert_eq!(run(source, &object), Err(expected.to_string()), "{source}");
    }
    assert!(run("self.", &object).unwrap_err().starts_with("compilation failed: ERROR: <input>:1:"));
}

#[test]
fn nothing_costs_more_than_its_budget() {
    let object = json!({"l": (0..200).collect::<Vec<i32>>()});
    let program = Program::compile("self.l.all(a, self.l.all(b, self.l.all(c, a + b + c >= 0)))", &["self"]).unwrap();
    let scope = Scope::new().with("self", Val::json(&object));
    let mut budget = Budget::new(OBJECT_LIMIT);
    assert!(matches!(program.evaluate(&scope, &mut budget), Err(EvalError::Cost)));
    assert_eq!(budget.left(), OBJECT_LIMIT - CALL_LIMIT);
}

#[test]
fn authorizers_are_asked() {
    struct OnlyGet;
    impl Authorizer for OnlyGet {
        fn check(&self, check: &Check) -> Decision {
            Decision { allowed: check.verb == "get" && check.resource == "pods", ..Decision::default() }
        }
    }
    let program = Program::compile(
        "authorizer.group('').resource('pods').namespace('x').check('get').allowed() && !authorizer.path('/x').check('get').allowed()",
        &["authorizer"],
    )
    .unwrap();
    let authorizer = Val::Authorizer(std::rc::Rc::new(OnlyGet), Default::default());
    assert_eq!(program.test(&Scope::new().with("authorizer", authorizer), &mut Budget::new(CALL_LIMIT)), Ok(true));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_makes_it_panic(source in "[a-z0-9 .()\\[\\]{}?:!&|<>=+*/%'\",-]{0,40}") {
            if let Ok(program) = Program::compile(&source, &["a", "self"]) {
                let _ = program.evaluate(&Scope::new().with("self", Val::Int(1)), &mut Budget::new(1000));
            }
        }
    }
}
