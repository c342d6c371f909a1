//! The built-in engine for ONNX graphs, by tract.

use std::fmt::Display;
use std::sync::Arc;
use tract_onnx::prelude::{
    Datum, DatumType, Framework, InferenceFact, InferenceModel, InferenceModelExt, IntoRunnable, IntoTValue, TValue,
    TractError, TractResult, TypedFact, TypedModel, TypedRunnableModel,
};
use tract_onnx::tract_core::model::OutletId;
use tract_onnx::tract_hir::infer::Factoid;
use tract_onnx::tract_hir::internal::DimLike;
use vault_enclave::serve::{Data, EngineError, Infer, Port, Tensor};

type Array = tract_onnx::prelude::Tensor;

/// A graph that computes.
pub struct Onnx {
    plan: Arc<TypedRunnableModel>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

impl Onnx {
    /// From the one entry whose name ends in `.onnx`. Weights in other files are not looked for.
    pub fn new(files: &[(String, Vec<u8>)]) -> Result<Self, String> {
        let mut graphs = files.iter().filter(|(name, _)| name.to_ascii_lowercase().ends_with(".onnx"));
        let (name, bytes) = match (graphs.next(), graphs.next()) {
            (Some(graph), None) => graph,
            (None, _) => return Err("the model has no .onnx file".into()),
            _ => return Err("the model has several .onnx files; the engine takes one".into()),
        };
        let wrong = |e: &dyn Display| format!("{name}: {}", e.to_string().lines().next().unwrap_or_default());
        let graph = tract_onnx::onnx().model_for_read(&mut bytes.as_slice()).map_err(|e| wrong(&e))?;
        let open = graph.clone().into_optimized();
        let model = open.or_else(|_| fixed(graph)?.into_optimized()).map_err(|e| wrong(&e))?;
        let inputs = ports(&model, &model.inputs).map_err(|e| wrong(&e))?;
        let outputs = ports(&model, &model.outputs).map_err(|e| wrong(&e))?;
        let plan = model.into_runnable().map_err(|e| wrong(&e))?;
        Ok(Self { plan, inputs, outputs })
    }
}

/// The graph with 1 for every dimension of its inputs that is open.
fn fixed(mut graph: InferenceModel) -> TractResult<InferenceModel> {
    for place in 0..graph.inputs.len() {
        let fact = graph.input_fact(place)?.clone();
        let (Some(datum), false) = (fact.datum_type.concretize(), fact.shape.is_open()) else { continue };
        let size = |n: Option<usize>| n.unwrap_or(1);
        let shape: Vec<usize> =
            fact.shape.dims().map(|dim| size(dim.concretize().and_then(|dim| dim.to_usize().ok()))).collect();
        graph.set_input_fact(place, InferenceFact::dt_shape(datum, shape.as_slice()))?;
    }
    for place in 0..graph.outputs.len() {
        graph.set_output_fact(place, InferenceFact::default())?; // it was said with the dimensions that were open
    }
    Ok(graph)
}

fn ports(model: &TypedModel, outlets: &[OutletId]) -> TractResult<Vec<Port>> {
    let port = |outlet: &OutletId| {
        let TypedFact { datum_type, shape, .. } = model.outlet_fact(*outlet)?;
        let name = model.outlet_label(*outlet).unwrap_or(&model.node(outlet.node).name);
        let Some(datatype) = datatype(*datum_type) else {
            return Err(TractError::msg(format!("{name}: tensors of type {datum_type:?}")));
        };
        Ok(Port { name: name.to_owned(), datatype, shape: shape.iter().map(|dim| dim.to_usize().ok()).collect() })
    };
    outlets.iter().map(port).collect()
}

/// As the protocol spells it.
fn datatype(datum: DatumType) -> Option<&'static str> {
    Some(match datum {
        DatumType::F32 => "FP32",
        DatumType::F64 => "FP64",
        DatumType::I64 | DatumType::TDim => "INT64",
        DatumType::I32 => "INT32",
        DatumType::I8 => "INT8",
        DatumType::U8 => "UINT8",
        DatumType::Bool => "BOOL",
        _ => return None,
    })
}

fn to_array(tensor: &Tensor) -> TractResult<TValue> {
    let Tensor { shape, data } = tensor;
    let array = match data {
        Data::F32(n) => Array::from_shape(shape, n),
        Data::F64(n) => Array::from_shape(shape, n),
        Data::I64(n) => Array::from_shape(shape, n),
        Data::I32(n) => Array::from_shape(shape, n),
        Data::I8(n) => Array::from_shape(shape, n),
        Data::U8(n) => Array::from_shape(shape, n),
        Data::Bool(n) => Array::from_shape(shape, n),
        _ => Err(TractError::msg("a type that the engine does not know")),
    };
    Ok(array?.into_tvalue())
}

fn to_tensor(array: &Array) -> TractResult<Tensor> {
    fn all<T: Datum + Clone>(array: &Array) -> TractResult<Vec<T>> {
        Ok(array.try_as_plain_ram()?.as_slice::<T>()?.to_vec())
    }
    let data = match array.datum_type() {
        DatumType::F32 => Data::F32(all(array)?),
        DatumType::F64 => Data::F64(all(array)?),
        DatumType::I64 => Data::I64(all(array)?),
        DatumType::I32 => Data::I32(all(array)?),
        DatumType::I8 => Data::I8(all(array)?),
        DatumType::U8 => Data::U8(all(array)?),
        DatumType::Bool => Data::Bool(all(array)?),
        DatumType::TDim => Data::I64(all(array.cast_to_dt(DatumType::I64)?.as_ref())?),
        _ => return Err(TractError::msg("an output of a type that the protocol does not have")),
    };
    Ok(Tensor { shape: array.shape().to_vec(), data })
}

impl Infer for Onnx {
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn infer(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, EngineError> {
        let run = || {
            let arrays = inputs.iter().map(to_array).collect::<TractResult<_>>()?;
            let outputs = self.plan.run(arrays)?;
            outputs.iter().map(|array| to_tensor(array)).collect::<TractResult<Vec<_>>>()
        };
        // What tract says may hold what it was given.
        run().map_err(|_| EngineError("the engine does not compute these inputs".into()))
    }
}
