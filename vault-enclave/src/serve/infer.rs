//! Tensors in and out: the Open Inference Protocol (KServe's V2) in JSON, docs/ENCLAVE.md section 6. What comes in is checked against the
//! model's inputs before the engine sees it.

use super::EngineError;
use crate::model::Statement;
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Most dimensions of a tensor.
const MAX_RANK: usize = 8;

/// Computes tensors with a model that is in memory. Used from several threads.
pub trait Infer: Send + Sync {
    /// What it takes, in its order.
    fn inputs(&self) -> &[Port];
    /// What it gives, in its order.
    fn outputs(&self) -> &[Port];
    /// One tensor for each output. The inputs are in order, of the right type and rank, and no dimension is other than one that is fixed.
    fn infer(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, EngineError>;
}

/// An input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name in the graph.
    pub name: String,
    /// As the protocol spells it: `FP32`.
    pub datatype: &'static str,
    /// Dimensions, outermost first; none for those that are open.
    pub shape: Vec<Option<usize>>,
}

/// Numbers with their dimensions.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Dimensions, outermost first; their product is how many numbers there are.
    pub shape: Vec<usize>,
    /// Row-major.
    pub data: Data,
}

/// Numbers of one type.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Data {
    /// `FP32`
    F32(Vec<f32>),
    /// `FP64`
    F64(Vec<f64>),
    /// `INT64`
    I64(Vec<i64>),
    /// `INT32`
    I32(Vec<i32>),
    /// `INT8`
    I8(Vec<i8>),
    /// `UINT8`
    U8(Vec<u8>),
    /// `BOOL`
    Bool(Vec<bool>),
}

/// What a client wants to have computed.
#[derive(Debug)]
pub(super) struct Asked {
    pub id: Option<String>,
    pub inputs: Vec<Tensor>,
    /// Which outputs, by their place; all of them if empty.
    pub outputs: Vec<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(default)]
    id: Option<String>,
    inputs: Vec<Given>,
    #[serde(default)]
    outputs: Vec<Wanted>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    name: String,
    datatype: String,
    shape: Vec<usize>,
    data: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
}

/// An answer.
#[derive(Serialize)]
pub(super) struct Answer {
    model_name: String,
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    outputs: Vec<Output>,
}

#[derive(Serialize)]
struct Output {
    name: String,
    datatype: &'static str,
    shape: Vec<usize>,
    data: Data,
}

impl Serialize for Data {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::F32(n) => n.serialize(serializer),
            Self::F64(n) => n.serialize(serializer),
            Self::I64(n) => n.serialize(serializer),
            Self::I32(n) => n.serialize(serializer),
            Self::I8(n) => n.serialize(serializer),
            Self::U8(n) => n.serialize(serializer),
            Self::Bool(n) => n.serialize(serializer),
        }
    }
}

impl Data {
    /// Numbers of this type, flat or nested; none if one is not of it.
    fn read(datatype: &str, value: &Value, count: usize) -> Option<Self> {
        fn all<T>(value: &Value, count: usize, one: impl Fn(&Value) -> Option<T> + Copy) -> Option<Vec<T>> {
            fn walk<T>(
                value: &Value,
                depth: usize,
                into: &mut Vec<T>,
                one: impl Fn(&Value) -> Option<T> + Copy,
            ) -> Option<()> {
                match value {
                    Value::Array(values) if depth > 0 => values.iter().try_for_each(|v| walk(v, depth - 1, into, one)),
                    value => {
                        into.push(one(value)?);
                        Some(())
                    }
                }
            }
            let mut numbers = Vec::new(); // grows by what was sent, not by what was said
            walk(value, MAX_RANK, &mut numbers, one)?;
            (numbers.len() == count).then_some(numbers)
        }
        #[expect(clippy::cast_possible_truncation)] // the nearest single is what the protocol means
        let single = |v: &Value| v.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
        match datatype {
            "FP32" => all(value, count, single).map(Self::F32),
            "FP64" => all(value, count, Value::as_f64).map(Self::F64),
            "INT64" => all(value, count, Value::as_i64).map(Self::I64),
            "INT32" => all(value, count, |v| v.as_i64()?.try_into().ok()).map(Self::I32),
            "INT8" => all(value, count, |v| v.as_i64()?.try_into().ok()).map(Self::I8),
            "UINT8" => all(value, count, |v| v.as_u64()?.try_into().ok()).map(Self::U8),
            "BOOL" => all(value, count, Value::as_bool).map(Self::Bool),
            _ => None,
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(n) => n.len(),
            Self::F64(n) => n.len(),
            Self::I64(n) => n.len(),
            Self::I32(n) => n.len(),
            Self::I8(n) => n.len(),
            Self::U8(n) => n.len(),
            Self::Bool(n) => n.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As the protocol spells its type.
    pub fn datatype(&self) -> &'static str {
        match self {
            Self::F32(_) => "FP32",
            Self::F64(_) => "FP64",
            Self::I64(_) => "INT64",
            Self::I32(_) => "INT32",
            Self::I8(_) => "INT8",
            Self::U8(_) => "UINT8",
            Self::Bool(_) => "BOOL",
        }
    }

    /// As floating-point numbers, to be compared.
    #[allow(clippy::cast_precision_loss)] // nobody compares beyond the 53rd bit
    pub fn numbers(&self) -> Vec<f64> {
        match self {
            Self::F32(n) => n.iter().map(|x| f64::from(*x)).collect(),
            Self::F64(n) => n.clone(),
            Self::I64(n) => n.iter().map(|x| *x as f64).collect(),
            Self::I32(n) => n.iter().map(|x| f64::from(*x)).collect(),
            Self::I8(n) => n.iter().map(|x| f64::from(*x)).collect(),
            Self::U8(n) => n.iter().map(|x| f64::from(*x)).collect(),
            Self::Bool(n) => n.iter().map(|x| f64::from(u8::from(*x))).collect(),
        }
    }
}

impl Tensor {
    /// Of JSON as the protocol has it, for a port.
    fn read(given: &Given, port: &Port) -> Result<Self, String> {
        let Given { datatype, shape, data, .. } = given;
        let name = &port.name;
        if datatype != port.datatype {
            return Err(format!("{name}: expected datatype {}", port.datatype));
        }
        let fits = |(given, fixed): (&usize, &Option<usize>)| fixed.is_none_or(|fixed| fixed == *given);
        if shape.len() != port.shape.len() || !shape.iter().zip(&port.shape).all(fits) {
            return Err(format!("{name}: expected shape {}", shown(&port.shape)));
        }
        let count = shape.iter().try_fold(1_usize, |count, n| count.checked_mul(*n)).filter(|count| *count > 0);
        let data = count.and_then(|count| Data::read(datatype, data, count));
        let data = data.ok_or_else(|| format!("{name}: data is not as many {datatype} numbers as shape says"))?;
        Ok(Self { shape: shape.clone(), data })
    }

    /// Scaled to unit length: what the watch compares. Zeros stay zeros.
    #[expect(clippy::cast_possible_truncation)] // a direction needs no more
    pub fn direction(&self) -> Vec<f32> {
        let numbers = self.data.numbers();
        let length = numbers.iter().map(|x| x * x).sum::<f64>().sqrt();
        numbers.iter().map(|x| if length > 0.0 { (x / length) as f32 } else { 0.0 }).collect()
    }
}

fn shown(shape: &[Option<usize>]) -> String {
    let sizes: Vec<_> = shape.iter().map(|n| n.map_or("-1".to_owned(), |n| n.to_string())).collect();
    format!("[{}]", sizes.join(", "))
}

impl Asked {
    /// Numbers that were sent.
    pub fn numbers(&self) -> u64 {
        self.inputs.iter().map(|tensor| tensor.data.len() as u64).sum()
    }

    /// The same for the same inputs, however they were spelled.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for Tensor { shape, data } in &self.inputs {
            for n in shape {
                hash.update((*n as u64).to_le_bytes());
            }
            for x in data.numbers() {
                hash.update(x.to_le_bytes());
            }
        }
        hash.finalize().into()
    }
}

/// Which route it is.
pub(super) fn route(method: &Method, path: &str, model: &str) -> &'static str {
    let rest = path.strip_prefix("/v2/models/").and_then(|rest| rest.strip_prefix(model));
    match (method, rest) {
        (&Method::GET, Some("")) => "metadata",
        (&Method::POST, Some("/infer")) => "infer",
        _ => "other",
    }
}

/// Reads a request. The error says what is wrong, and repeats nothing of it.
pub(super) fn read(body: &[u8], inputs: &[Port], outputs: &[Port]) -> Result<Asked, String> {
    let form = "expected {\"inputs\": [{\"name\", \"datatype\", \"shape\", \"data\"}, …]}";
    let request: Request = serde_json::from_slice(body).map_err(|_| form)?;
    tensors(&request.inputs, inputs).and_then(|tensors| {
        let place = |wanted: &Wanted| outputs.iter().position(|port| port.name == wanted.name);
        let wanted: Option<Vec<_>> = request.outputs.iter().map(place).collect();
        let wanted = wanted.filter(|wanted| wanted.len() <= outputs.len());
        let outputs = wanted.ok_or_else(|| format!("outputs: expected some of {}", names(outputs)))?;
        Ok(Asked { id: request.id.filter(|id| id.len() <= 64), inputs: tensors, outputs })
    })
}

fn names(ports: &[Port]) -> String {
    ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// One tensor for each port, in their order.
fn tensors(given: &[Given], ports: &[Port]) -> Result<Vec<Tensor>, String> {
    if given.len() != ports.len() {
        return Err(format!("inputs: expected {}", names(ports)));
    }
    let tensor = |port: &Port| {
        let given = given.iter().find(|given| given.name == port.name);
        Tensor::read(given.ok_or_else(|| format!("inputs: expected {}", names(ports)))?, port)
    };
    ports.iter().map(tensor).collect()
}

/// Tensors in the protocol's JSON, one for each port: what a golden set has.
pub fn read_tensors(json: &Value, ports: &[Port]) -> Result<Vec<Tensor>, String> {
    let given: Vec<Given> = serde_json::from_value(json.clone()).map_err(|e| e.to_string())?;
    tensors(&given, ports)
}

/// What the protocol says of a model.
pub(super) fn metadata(engine: &dyn Infer, model: &Statement) -> Value {
    let port = |port: &Port| {
        let shape: Vec<_> = port.shape.iter().map(|n| n.map_or(Value::from(-1), Value::from)).collect();
        serde_json::json!({ "name": port.name, "datatype": port.datatype, "shape": shape })
    };
    serde_json::json!({
        "name": model.name, "versions": [model.version.to_string()], "platform": "onnx",
        "inputs": engine.inputs().iter().map(port).collect::<Vec<_>>(),
        "outputs": engine.outputs().iter().map(port).collect::<Vec<_>>(),
    })
}

/// What goes back.
pub(super) fn answer(
    model: &Statement,
    id: Option<String>,
    outputs: Vec<Tensor>,
    wanted: &[usize],
    ports: &[Port],
) -> Result<Answer, EngineError> {
    if outputs.iter().any(|tensor| tensor.data.numbers().iter().any(|x| !x.is_finite())) {
        return Err(EngineError("the engine's numbers are not finite".into())); // no JSON for them
    }
    let output = |(port, Tensor { shape, data }): (&Port, Tensor)| Output {
        name: port.name.clone(),
        datatype: data.datatype(),
        shape,
        data,
    };
    let outputs =
        ports.iter().zip(outputs).enumerate().filter(|(place, _)| wanted.is_empty() || wanted.contains(place));
    let outputs = outputs.map(|(_, pair)| output(pair)).collect();
    Ok(Answer { model_name: model.name.clone(), model_version: model.version.to_string(), id, outputs })
}
