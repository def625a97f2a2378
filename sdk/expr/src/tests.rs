use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{BooleanArray, Float64Array, Int32Array, Int64Array, StringArray, TimestampSecondArray};
use arrow_schema::{Field, Schema};
use proptest::prelude::*;

use super::*;

fn table() -> (Schema, Vec<(String, Column)>) {
    let columns: Vec<(String, Column)> = vec![
        ("i".into(), Int64Array::from(vec![Some(1), Some(-2), None, Some(i64::MAX)]).into()),
        ("s".into(), Int32Array::from(vec![7, 0, 3, -1]).into()),
        ("f".into(), Float64Array::from(vec![Some(0.5), None, Some(-1.5), Some(f64::NAN)]).into()),
        ("b".into(), BooleanArray::from(vec![Some(true), Some(false), None, None]).into()),
        ("t".into(), StringArray::from(vec![Some("Ada"), Some(""), None, Some("blue sky")]).into()),
        ("when".into(), TimestampSecondArray::from(vec![0, 86_399, 951_782_400, -1]).into()),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, array)| Field::new(name, array.data_type().clone(), true)).collect();
    (Schema::new(fields), columns)
}

fn compute(source: &str) -> Result<Column, ExprError> {
    let (schema, columns) = table();
    let checked = parse(source)?.check(&schema)?;
    let inputs: Vec<Column> = checked
        .columns()
        .iter()
        .map(|name| columns.iter().find(|(known, _)| known == name).map(|(_, array)| array.clone()).expect("checked"))
        .collect();
    checked.column(&inputs, 4)
}

fn ints(source: &str) -> Vec<Option<i64>> {
    compute(source).expect(source).primitive::<Int64Type>().unwrap().iter().collect()
}

fn floats(source: &str) -> Vec<Option<f64>> {
    compute(source).expect(source).primitive::<Float64Type>().unwrap().iter().collect()
}

fn bools(source: &str) -> Vec<Option<bool>> {
    compute(source).expect(source).boolean().unwrap().iter().collect()
}

fn texts(source: &str) -> Vec<Option<String>> {
    compute(source).expect(source).text().unwrap().iter().map(|text| text.map(str::to_owned)).collect()
}

fn error(source: &str) -> String {
    let error = compute(source).expect_err(source);
    let row = error.row.map_or(String::new(), |row| format!(" row {row}"));
    format!("{}..{}{row}: {}", error.span.0, error.span.1, error.message)
}

#[test]
fn operators_bind_as_in_sql() {
    assert_eq!(ints("1 + 2 * 3 - -4")[0], Some(11));
    assert_eq!(ints("(1 + 2) * 3")[0], Some(9));
    assert_eq!(bools("not 1 = 2 and true or false")[0], Some(true));
}

#[test]
fn nulls_follow_three_valued_logic() {
    assert_eq!(bools("b and false"), vec![Some(false); 4]);
    assert_eq!(bools("b and true"), vec![Some(true), Some(false), None, None]);
    assert_eq!(bools("b or true"), vec![Some(true); 4]);
    assert_eq!(bools("b or false"), vec![Some(true), Some(false), None, None]);
    assert_eq!(bools("not b"), vec![Some(false), Some(true), None, None]);
    assert_eq!(bools("i is null"), vec![Some(false), Some(false), Some(true), Some(false)]);
    assert_eq!(bools("i is not null and i > 0"), vec![Some(true), Some(false), Some(false), Some(true)]);
    assert_eq!(bools("i = null"), vec![None; 4]);
}

#[test]
fn arithmetic_keeps_integers_and_divides_to_floats() {
    assert_eq!(ints("s * 2 + 1"), vec![Some(15), Some(1), Some(7), Some(-1)]);
    assert_eq!(ints("s % 0"), vec![None; 4]);
    assert_eq!(floats("s / 2"), vec![Some(3.5), Some(0.0), Some(1.5), Some(-0.5)]);
    assert_eq!(floats("f + i")[..3], [Some(1.5), None, None]);
    assert_eq!(error("i + 1"), "0..5 row 3: the result does not fit 64 bits (values 9223372036854775807 and 1)");
}

#[test]
fn choices_take_the_first_that_holds() {
    assert_eq!(ints("case when s > 5 then 1 when s > 0 then 2 end"), vec![Some(1), None, Some(2), None]);
    assert_eq!(floats("if(s > 0, s, 0.5)"), vec![Some(7.0), Some(0.5), Some(3.0), Some(0.5)]);
    assert_eq!(ints("coalesce(i, s, 9)"), vec![Some(1), Some(-2), Some(3), Some(i64::MAX)]);
    assert_eq!(ints("nullif(s, 7)"), vec![None, Some(0), Some(3), Some(-1)]);
    assert_eq!(ints("greatest(s, 2)"), vec![Some(7), Some(2), Some(3), Some(2)]);
    assert_eq!(bools("s in (7, 3, 3)"), vec![Some(true), Some(false), Some(true), Some(false)]);
    assert_eq!(bools("s not between 0 and 5"), vec![Some(true), Some(false), Some(false), Some(true)]);
}

/// A value without a result is an error only in rows where it is used.
#[test]
fn a_guarded_value_fails_only_where_it_is_used() {
    assert_eq!(ints("if(s > 0, bucket('foobar', s), -1)")[1..], [Some(-1), Some(0), Some(-1)]);
    assert_eq!(ints("if(i < 5, i + 1, -1)"), [Some(2), Some(-1), Some(-1), Some(-1)]);
    assert_eq!(ints("case when i > 5 then 0 when s = 0 then -1 else i + 1 end"), [Some(2), Some(-1), None, Some(0)]);
    assert_eq!(
        ints("case when t >= '' then 1 when cast(t as int64) > 0 then 2 end"),
        [Some(1), Some(1), None, Some(1)]
    );
    assert_eq!(ints("coalesce(nullif(s, -1), i - 1)"), [Some(7), Some(0), Some(3), Some(i64::MAX - 1)]);
    assert_eq!(ints("coalesce(s, i + 1)"), [Some(7), Some(0), Some(3), Some(-1)]);
    assert_eq!(ints("if(f < 1, cast(f as int64), 0)"), [Some(0), Some(0), Some(-1), Some(0)]);
    assert_eq!(bools("s > 5 and i + 1 > 0"), [Some(true), Some(false), Some(false), Some(false)]);
    assert_eq!(bools("s <= 5 or i + 1 > 0")[..2], [Some(true), Some(true)]);
    assert_eq!(ints("if(s > 5, if(i > 0, i + 1, 0), 0)"), [Some(2), Some(0), Some(0), Some(0)]);
    // Texts of rows where they are not used are not built: one of these would have 3 GB.
    let long =
        (0..9).fold("replace(t, 'A', 'AAA')".to_owned(), |text, _| format!("replace({text}, 'A', 'AAAAAAAAAA')"));
    assert_eq!(ints(&format!("if(s <> 7, length({long}), -1)")), [Some(-1), Some(0), None, Some(8)]);
    // Where it is used it is an error, also after a condition that is null.
    assert_eq!(
        error("if(s < 0, i + 1, 0)"),
        "10..15 row 3: the result does not fit 64 bits (values 9223372036854775807 and 1)"
    );
    assert_eq!(
        error("if(s < 7, if(s > 5, 0, i + 1), 0)"),
        "23..28 row 3: the result does not fit 64 bits (values 9223372036854775807 and 1)"
    );
    assert!(error("b and i + 1 > 0").contains("row 3"));
    assert!(error("b or i + 1 > 0").contains("row 3"));
    assert!(error("cast(t as int64) > 0 or s > 0").contains("row 0"));
    assert!(error("coalesce(nullif(s, -1), i + 1)").contains("row 3"));
}

#[test]
fn text_functions_work_on_characters() {
    assert_eq!(texts("upper(t) || '!'"), vec![Some("ADA!".into()), Some("!".into()), None, Some("BLUE SKY!".into())]);
    assert_eq!(ints("length(t)"), vec![Some(3), Some(0), None, Some(8)]);
    assert_eq!(texts("substr(t, 2, 3)")[3], Some("lue".into()));
    assert_eq!(bools("t like '%b_ue%'"), vec![Some(false), Some(false), None, Some(true)]);
    assert_eq!(bools("t like '%%'"), vec![Some(true), Some(true), None, Some(true)]);
    assert_eq!(texts("cast(s as text)")[3], Some("-1".into()));
    assert_eq!(error("cast(t as int64)"), "0..16 row 0: the text `Ada` is not an integer");
}

#[test]
fn time_has_calendar_fields_before_and_after_1970() {
    assert_eq!(ints("year(\"when\")"), vec![Some(1970), Some(1970), Some(2000), Some(1969)]);
    assert_eq!(ints("month(\"when\") * 100 + day(\"when\")"), vec![Some(101), Some(101), Some(229), Some(1231)]);
    assert_eq!(ints("hour(\"when\")"), vec![Some(0), Some(23), Some(0), Some(23)]);
    assert_eq!(ints("weekday(\"when\")"), vec![Some(3), Some(3), Some(1), Some(2)]);
    assert_eq!(bools("\"when\" >= '2000-02-29'"), vec![Some(false), Some(false), Some(true), Some(false)]);
    assert_eq!(texts("cast(\"when\" as text)")[1], Some("1970-01-01 23:59:59".into()));
    assert_eq!(error("\"when\" > 'soon'"), "9..15: `soon` is not a timestamp, such as '2025-01-31 12:00:00'");
}

#[test]
fn errors_have_the_span_of_their_cause() {
    assert_eq!(error("s +"), "3..3: expected a value, but the expression ends");
    assert_eq!(error("s s"), "2..3: expected the end of the expression, found `s`");
    assert_eq!(error("s + t"), "4..5: expected a number, found text");
    assert_eq!(error("'a"), "0..2: a ' is opened but never closed");
    assert_eq!(error("s ? 1"), "2..3: unexpected `?`");
    assert_eq!(error("foo(s)"), "0..6: there is no function `foo`");
    assert_eq!(error("s > 1 > 2"), "6..7: expected the end of the expression, found `>`");
    let (schema, _) = table();
    let unknown = parse("1 < ss").expect("syntax").check(&schema).expect_err("no such column");
    assert_eq!((unknown.missing.as_deref(), unknown.span), (Some("ss"), (4, 6)));
    assert!(unknown.candidates.contains(&"s".to_owned()));
}

#[test]
fn deep_nesting_is_refused() {
    for text in [
        "(".repeat(100_000),
        "not ".repeat(100_000),
        "-".repeat(100_000),
        "1+".repeat(100_000),
        "case when ".repeat(1000),
    ] {
        assert!(parse(&text).is_err());
    }
    assert_eq!(bools(&format!("s in ({})", vec!["7"; 20_000].join(","))).first(), Some(&Some(true)));
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in "[a-z0-9 ().,<>=+*/%'\"|-]{0,40}") {
        let _ = compute(&text);
    }

    #[test]
    fn days_and_dates_are_the_same(days in -3_000_000i64..2_900_000) {
        let (year, month, day) = crate::time::civil(days);
        prop_assert_eq!(crate::time::days(year, month, day), Some(days));
    }

    /// Compared with a simple reference.
    #[test]
    fn like_agrees_with_its_definition(pattern in "[ab%_]{0,6}", text in "[ab]{0,6}") {
        fn reference(p: &[u8], t: &[u8]) -> bool {
            match (p.first(), t.first()) {
                (None, None) => true,
                (Some(b'%'), _) => reference(&p[1..], t) || (!t.is_empty() && reference(p, &t[1..])),
                (Some(b'_'), Some(_)) => reference(&p[1..], &t[1..]),
                (Some(a), Some(b)) if a == b => reference(&p[1..], &t[1..]),
                _ => false,
            }
        }
        let found = crate::text::Pattern::new(&pattern).matches(&text);
        prop_assert_eq!(found, reference(pattern.as_bytes(), text.as_bytes()));
    }
}

#[test]
fn integer_division_rounds_down_and_buckets_agree_with_other_implementations() {
    assert_eq!(ints("div(s, 2)"), [Some(3), Some(0), Some(1), Some(-1)]);
    assert_eq!(ints("div(7, s)"), [Some(1), None, Some(2), Some(-7)]);
    // The test vector of the algorithm's authors for "foobar".
    assert_eq!(ints("bucket(t, 1)"), [Some(0), Some(0), None, Some(0)]);
    assert_eq!(ints("bucket('foobar', 1000000007)")[0], Some((0x8594_4171_f739_67e8_u64 % 1_000_000_007) as i64));
    assert!(error("bucket('a', 0)").contains("the number of buckets is 0, but must be positive"));
    assert!(error("bucket('a')").contains("takes two values, not 1"), "{}", error("bucket('a')"));
    assert!(error("concat()").contains("takes one value or more, not 0"), "{}", error("concat()"));
}

/// FNV-1a as its authors define it.
fn fnv1a(text: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    for byte in text.bytes() {
        hash ^= u64::from(byte);
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash
}

type Row = (String, i64, Option<bool>);

proptest! {
    /// A concatenated text has the bucket of the complete text, for any number of rows, and none
    /// where a piece of it is missing.
    #[test]
    fn a_text_and_its_pieces_have_the_same_bucket(
        rows in prop::collection::vec((prop::option::weighted(0.8, "[a-zé]{0,9}"), prop::option::weighted(0.8, "[a-zé]{0,9}")), 0..14),
        buckets in prop::option::weighted(0.9, 1i64..5000),
    ) {
        let (a, b): (Vec<_>, Vec<_>) = rows.iter().cloned().unzip();
        let columns: [Column; 2] = [StringArray::from(a).into(), StringArray::from(b).into()];
        let field = |name| Field::new(name, arrow_schema::DataType::Utf8, true);
        let schema = Schema::new(vec![field("a"), field("b")]);
        let buckets_text = buckets.map_or("null".to_owned(), |buckets| buckets.to_string());
        let expected: Vec<Option<i64>> = rows
            .iter()
            .map(|(a, b)| Some((fnv1a(&format!("{}|{}é", a.as_ref()?, b.as_ref()?)) % buckets? as u64) as i64))
            .collect();
        for text in ["concat(a, '|', b, 'é')", "a || '|' || b || 'é'", "concat(concat(a, '|'), concat(concat(b), 'é'))"] {
            let checked = parse(&format!("bucket({text}, {buckets_text})")).unwrap().check(&schema).unwrap();
            let inputs: Vec<Column> =
                checked.columns().iter().map(|name| columns[usize::from(name == "b")].clone()).collect();
            let found = checked.column(&inputs, rows.len()).unwrap();
            prop_assert_eq!(found.primitive::<Int64Type>().unwrap().iter().collect::<Vec<_>>(), expected.clone());
        }
    }

    /// An arm of a choice gives the same as over its own rows alone, including its first error.
    #[test]
    fn an_arm_gives_the_same_as_over_its_own_rows(
        rows in prop::collection::vec(("(1|22|x|)", prop_oneof![Just(i64::MAX), -3i64..4], prop::option::of(any::<bool>())), 1..140),
    ) {
        let arm = "bucket(t, n) + cast(t as int64) * n - cast(cast(n as float64) / n as int64)";
        let other = "n + 1 + length(t)";
        let field = |name, ty| Field::new(name, ty, true);
        use arrow_schema::DataType as Ty;
        let schema = Schema::new(vec![field("t", Ty::Utf8), field("n", Ty::Int64), field("c", Ty::Boolean)]);
        let of = |text: &str, rows: &[Row]| -> Result<Vec<Option<i64>>, usize> {
            let columns: [Column; 3] = [
                StringArray::from_iter_values(rows.iter().map(|row| &row.0)).into(),
                Int64Array::from_iter_values(rows.iter().map(|row| row.1)).into(),
                BooleanArray::from_iter(rows.iter().map(|row| row.2)).into(),
            ];
            let checked = parse(text).unwrap().check(&schema).unwrap();
            let inputs: Vec<Column> =
                checked.columns().iter().map(|name| columns[["t", "n", "c"].iter().position(|known| known == name).unwrap()].clone()).collect();
            let column = checked.column(&inputs, rows.len()).map_err(|error| error.row.unwrap())?;
            Ok(column.primitive::<Int64Type>().unwrap().iter().collect())
        };
        let guarded = "c and 0 < n and n < 9 and t <> 'x' and t <> ''";
        let forms: [(String, fn(&Row) -> bool); 3] = [
            (format!("if(c, {arm}, {other})"), |row| row.2 == Some(true)),
            (
                format!("case when not c then {other} when c is null then {other} else {arm} end"),
                |row| row.2 == Some(true),
            ),
            (format!("if({guarded}, {arm}, if(n < 9, {other}, 0 - n))"), |row| {
                row.2 == Some(true) && (1..9).contains(&row.1) && row.0 != "x" && !row.0.is_empty()
            }),
        ];
        for (form, (text, is_arm)) in forms.into_iter().enumerate() {
            let alone = |row: &Row| match (is_arm(row), row.1) {
                (false, 9..) if form == 2 => Ok(Some(-row.1)),
                (is_arm, _) => of(if is_arm { arm } else { other }, std::slice::from_ref(row)).map(|found| found[0]),
            };
            let expected: Vec<Result<Option<i64>, usize>> = rows.iter().map(alone).collect();
            match of(&text, &rows) {
                Ok(found) => prop_assert_eq!(found.into_iter().map(Ok).collect::<Vec<_>>(), expected),
                // If several rows fail, the first row of the operation that is computed first.
                Err(row) => prop_assert!(form < 2 && expected[row].is_err()),
            }
        }
    }

    /// Dividing by a constant gives the same as dividing by a column of it.
    #[test]
    fn division_by_a_constant_is_division(
        values in prop::collection::vec(prop_oneof![any::<i64>(), -20i64..20, Just(i64::MIN)], 1..9),
        by in prop_oneof![Just(1i64), 2i64..40, any::<i64>(), Just(0), Just(-1)],
    ) {
        let rows = values.len();
        let columns: [Column; 2] = [Int64Array::from(values).into(), Int64Array::from(vec![by; rows]).into()];
        let field = |name| Field::new(name, arrow_schema::DataType::Int64, true);
        let schema = Schema::new(vec![field("a"), field("b")]);
        let of = |text: &str| -> Result<Vec<Option<i64>>, String> {
            let checked = parse(text).unwrap().check(&schema).unwrap();
            let inputs = &columns[..checked.columns().len()];
            let column = checked.column(inputs, rows).map_err(|error| error.message)?;
            Ok(column.primitive::<Int64Type>().unwrap().iter().collect())
        };
        prop_assert_eq!(of(&format!("div(a, {by})")), of("div(a, b)"));
    }
}

/// Each value is computed once, however deeply it is nested.
#[test]
fn nested_calls_are_evaluated_once() {
    let nested = (0..40).fold("i".to_owned(), |inner, number| format!("nullif({inner}, {})", number + 10));
    assert_eq!(ints(&nested), ints("i"));
}

/// NaN wins on both sides, and a count that a 32-bit guest would truncate is clamped.
#[test]
fn extremes_and_large_counts_are_the_same_everywhere() {
    assert!(floats("greatest(f, 0.0)")[3].unwrap().is_nan() && floats("greatest(0.0, f)")[3].unwrap().is_nan());
    assert_eq!(texts("substr(t, 4294967297, 1)")[0].as_deref(), Some(""));
    assert_eq!(texts("substr(t, 1, 4294967296)")[0].as_deref(), Some("Ada"));
}

#[test]
fn integers_have_64_bits() {
    assert!(crate::parse("-9223372036854775808").is_ok());
    for text in ["9223372036854775808", "- (9223372036854775808)", "99999999999999999999"] {
        let error = crate::parse(text).unwrap_err();
        assert!(error.message.contains("more than 64 bits"), "{text}: {}", error.message);
    }
}
