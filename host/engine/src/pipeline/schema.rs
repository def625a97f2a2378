//! The pipeline file as JSON Schema, for editors. The types here define what may be written; a test
//! checks their keys against those that the reader knows.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde_json::Value;

type Table<T> = BTreeMap<String, T>;

/// A Millrace pipeline.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "a description that is never constructed")]
pub(crate) struct PipelineFile {
    /// Name of the pipeline.
    pipeline: Option<Head>,
    /// Other files whose tables are merged with those here.
    include: Option<Vec<String>>,
    /// Values that `--set` can set, used as `${params.NAME}`.
    params: Option<Table<ParamFile>>,
    /// The sources of data.
    sources: Option<Table<SourceFile>>,
    /// The steps.
    steps: Option<Table<StepFile>>,
    /// The files to write: a path, and an output such as `predict` or `train.model[best]`.
    exports: Option<Table<String>>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "a description that is never constructed")]
struct Head {
    /// Shown in the history.
    name: Option<String>,
    /// Documentation.
    doc: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "a description that is never constructed")]
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
#[expect(dead_code, reason = "a description that is never constructed")]
struct ParamDefinition {
    /// `float`, `int`, `string`, `bool`, `list` or `table`; by default, that of the default value.
    r#type: Option<String>,
    /// The value if none is set.
    default: Option<Value>,
    /// The least value.
    min: Option<f64>,
    /// The greatest value.
    max: Option<f64>,
    /// Documentation.
    doc: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "a description that is never constructed")]
struct SourceFile {
    /// A file or a glob, relative to this file; `.gz` and `.zip` are unpacked.
    path: String,
    /// `csv`, `ndjson`, `parquet` or `arrow`; by default, the file name determines it.
    format: Option<String>,
    /// The columns to read, in order; by default, all.
    columns: Option<Vec<String>>,
    /// The rows to read: a condition as in SQL.
    r#where: Option<String>,
    /// Texts that count as missing in CSV; the empty one without.
    missing: Option<Vec<String>>,
    /// Types by column, instead of inferred ones.
    types: Option<Table<String>>,
    /// Rows of a part, for text files.
    #[schemars(range(min = 1))]
    part_rows: Option<u64>,
    /// The character between the fields of a CSV file.
    delimiter: Option<String>,
    /// Whether the source may have no rows.
    allow_empty: Option<bool>,
    /// Documentation.
    doc: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "a description that is never constructed")]
struct StepFile {
    /// The component: `std:NAME`, `path:FOLDER`, `path:FILE.wasm` or `folder:DIR/NAME@VERSION`.
    uses: String,
    /// The input of the step's first port.
    input: Option<String>,
    /// The input of each port: `SOURCE`, `STEP.PORT`, `STEP.PORT[*]`, `STEP.PORT[CHOICE]`.
    inputs: Option<Table<String>>,
    /// Settings of the step; `${params.NAME}` and `${matrix.NAME}` are substituted.
    params: Option<Table<Value>>,
    /// One instance for each combination of these values.
    matrix: Option<Table<Vec<Value>>>,
    /// The limits of a task of the step.
    limits: Option<LimitsFile>,
    /// What a component with WASI may read besides its inputs.
    grants: Option<GrantsFile>,
    /// `on`, `off`, or `{ max-age = "7d" }`.
    cache: Option<CacheFile>,
    /// Documentation.
    doc: Option<String>,
}

#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "a description that is never constructed")]
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
#[expect(dead_code, reason = "a description that is never constructed")]
struct GrantsFile {
    /// Folders to read, relative to this file. All of their content is in the key.
    read: Option<Vec<String>>,
    /// Variables of the environment. Their values are in the key.
    env: Option<Vec<String>>,
}

#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "a description that is never constructed")]
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
