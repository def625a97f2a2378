//! The pipeline file as JSON Schema, for editors. The types here say what may be
//! written; a test holds their keys against those that the reader knows.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde_json::Value;

type Table<T> = BTreeMap<String, T>;

/// A Millrace pipeline.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "a description, never made")]
pub(crate) struct PipelineFile {
    /// Name of the pipeline.
    pipeline: Option<Head>,
    /// Other files whose tables are merged with those here.
    include: Option<Vec<String>>,
    /// What can be set with `--set` and used as `${params.NAME}`.
    params: Option<Table<ParamFile>>,
    /// Where data comes from.
    sources: Option<Table<SourceFile>>,
    /// What is done with it.
    steps: Option<Table<StepFile>>,
    /// What is written: a path, and an output such as `predict` or `train.model[best]`.
    exports: Option<Table<String>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "a description, never made")]
struct Head {
    /// Shown in the history.
    name: Option<String>,
    /// For people.
    doc: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "a description, never made")]
enum ParamFile {
    /// A value, its own default.
    Number(f64),
    /// A value, its own default.
    Text(String),
    /// A value, its own default.
    Bool(bool),
    /// A value, its own default.
    List(Vec<Value>),
    /// A definition.
    Definition(ParamDefinition),
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "a description, never made")]
struct ParamDefinition {
    /// `float`, `int`, `string`, `bool`, `list` or `table`; that of the default without.
    r#type: Option<String>,
    /// The value unless it is set.
    default: Option<Value>,
    /// The least value.
    min: Option<f64>,
    /// The greatest value.
    max: Option<f64>,
    /// What it is for.
    doc: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "a description, never made")]
struct SourceFile {
    /// A file or a glob, relative to this file; `.gz` and `.zip` are unpacked.
    path: String,
    /// `csv`, `ndjson`, `parquet` or `arrow`; told by the file name without.
    format: Option<String>,
    /// Which columns, in which order; all without.
    columns: Option<Vec<String>>,
    /// Which rows: a condition as in SQL.
    r#where: Option<String>,
    /// Texts that count as missing in CSV; the empty one without.
    missing: Option<Vec<String>>,
    /// Types by column, instead of inferred ones.
    types: Option<Table<String>>,
    /// Rows of a part, for text files.
    #[schemars(range(min = 1))]
    part_rows: Option<u64>,
    /// Between the fields of a CSV file.
    delimiter: Option<String>,
    /// Whether a source without rows is fine.
    allow_empty: Option<bool>,
    /// For people.
    doc: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "a description, never made")]
struct StepFile {
    /// The component: `std:NAME`, `path:FOLDER` or `path:FILE.wasm`.
    uses: String,
    /// What goes to the step's first port.
    input: Option<String>,
    /// What goes to each port: `SOURCE`, `STEP.PORT`, `STEP.PORT[*]`, `STEP.PORT[CHOICE]`.
    inputs: Option<Table<String>>,
    /// Settings of the step; `${params.NAME}` and `${matrix.NAME}` are put in.
    params: Option<Table<Value>>,
    /// One instance for each combination of these values.
    matrix: Option<Table<Vec<Value>>>,
    /// What a task of the step may use.
    limits: Option<LimitsFile>,
    /// What a component with WASI may see besides.
    grants: Option<GrantsFile>,
    /// `on`, `off`, or `{ max-age = "7d" }`.
    cache: Option<CacheFile>,
    /// For people.
    doc: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "a description, never made")]
struct LimitsFile {
    /// Such as `512MiB`.
    memory: Option<String>,
    /// Such as `20G`.
    fuel: Option<String>,
    /// Such as `60s`.
    time: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "a description, never made")]
struct GrantsFile {
    /// Folders to read, relative to this file. All that is in them is in the key.
    read: Option<Vec<String>>,
    /// Variables of the environment. Their values are in the key.
    env: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "a description, never made")]
enum CacheFile {
    /// `on` or `off`.
    Word(String),
    /// By age.
    Age {
        /// A hit older than this is a miss.
        #[schemars(rename = "max-age")]
        max_age: String,
    },
}

/// JSON Schema of the pipeline file.
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(PipelineFile).to_value();
    if let Some(map) = schema.as_object_mut() {
        map.insert("title".to_owned(), "Millrace pipeline".into());
    }
    schema
}
