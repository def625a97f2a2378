use proptest::prelude::*;

use super::*;

fn column(name: &str, chunk: u8) -> ColumnParts {
    ColumnParts {
        name: ColumnName::new(name),
        data_type: DataType::Int64,
        nullable: false,
        chunks: vec![ColumnDigest::from_bytes([chunk; 32])],
    }
}

fn parts() -> KeyParts {
    KeyParts {
        component: ComponentDigest::from_bytes([1; 32]),
        params: CanonicalJson::new(&serde_json::json!({"x": 1})),
        phase: Phase::Map,
        inputs: vec![InputParts {
            port: PortName::new("input").unwrap(),
            items: vec![ItemParts {
                instance: None,
                content: Content::Table { rows: vec![3], columns: vec![column("a", 1), column("b", 2)] },
            }],
        }],
        grants: vec![],
    }
}

fn columns(parts: &mut KeyParts) -> &mut Vec<ColumnParts> {
    match &mut parts.inputs[0].items[0].content {
        Content::Table { columns, .. } => columns,
        _ => unreachable!("the fixture has a table"),
    }
}

/// A key never changes from one version to the next: otherwise every store would miss everything. A
/// change here needs a new `KEY_VERSION`, or follows from that of `WORLD_VERSION`.
#[test]
fn the_key_of_a_fixed_task_never_changes() {
    assert_eq!(parts().key().to_string(), "b3:32cb1fadd2d6489790247fc0ec32d1ee7fcea9228f4af5e61063a1fac55666fc");
}

#[test]
fn every_part_changes_the_key() {
    let changes: Vec<(&str, fn(&mut KeyParts))> = vec![
        ("component", |p| p.component = ComponentDigest::from_bytes([9; 32])),
        ("params", |p| p.params = CanonicalJson::default()),
        ("phase", |p| p.phase = Phase::Partial),
        ("port", |p| p.inputs[0].port = PortName::new("other").unwrap()),
        ("instance", |p| p.inputs[0].items[0].instance = Some(CanonicalJson::default())),
        ("column name", |p| columns(p)[0].name = ColumnName::new("c")),
        ("column type", |p| columns(p)[0].data_type = DataType::UInt64),
        ("nullability", |p| columns(p)[0].nullable = true),
        ("chunk", |p| columns(p)[0].chunks[0] = ColumnDigest::from_bytes([7; 32])),
        ("one chunk more", |p| columns(p)[0].chunks.push(ColumnDigest::from_bytes([7; 32]))),
        ("one column less", |p| columns(p).truncate(1)),
        ("column order", |p| columns(p).reverse()),
        ("rows", |p| p.inputs[0].items[0].content = Content::Table { rows: vec![4], columns: vec![] }),
        ("kind", |p| p.inputs[0].items[0].content = Content::Blob(BlobDigest::from_bytes([0; 32]))),
        ("grant", |p| p.grants.push(("env:LANG".into(), BlobDigest::from_bytes([0; 32])))),
    ];
    let mut keys = vec![("nothing", parts().key())];
    for (what, change) in changes {
        let mut changed = parts();
        change(&mut changed);
        keys.push((what, changed.key()));
    }
    for (i, (a, key_a)) in keys.iter().enumerate() {
        for (b, key_b) in &keys[i + 1..] {
            assert_ne!(key_a, key_b, "`{a}` and `{b}` have the same key");
        }
    }
}

proptest! {
    /// Moving a boundary between two names must not give the same preimage.
    #[test]
    fn the_boundary_between_two_names_changes_the_key(a in "[a-c]{1,4}", b in "[a-c]{1,4}", cut in 0usize..8) {
        let joined = format!("{a}{b}");
        let cut = cut.clamp(1, joined.len() - 1);
        let key = |x: &str, y: &str| {
            let mut p = parts();
            *columns(&mut p) = vec![column(x, 1), column(y, 2)];
            p.key()
        };
        let (x, y) = joined.split_at(cut);
        prop_assert_eq!(key(&a, &b) == key(x, y), (a.as_str(), b.as_str()) == (x, y));
    }
}
