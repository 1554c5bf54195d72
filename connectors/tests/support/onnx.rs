//! Writes small ONNX models, valid and invalid, field by field (onnx.proto3, IR version 8, opset 17).

use std::path::Path;

/// A protobuf message or a part of one.
type Bytes = Vec<u8>;

fn varint(mut value: u64) -> Bytes {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn number(field: u64, value: i64) -> Bytes {
    [varint(field << 3), varint(value as u64)].concat()
}

fn chunk(field: u64, payload: impl AsRef<[u8]>) -> Bytes {
    let payload = payload.as_ref();
    [varint(field << 3 | 2), varint(payload.len() as u64), payload.to_vec()].concat()
}

/// The value of a node's attribute.
pub enum Attribute {
    /// A number.
    Int(i64),
    /// A list of numbers.
    Ints(&'static [i64]),
}

/// A node of the graph.
pub fn node(op: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute)]) -> Bytes {
    let mut bytes: Bytes = inputs.iter().flat_map(|name| chunk(1, name)).collect();
    bytes.extend(chunk(2, output));
    bytes.extend(chunk(4, op));
    for (name, value) in attributes {
        let (value, kind) = match value {
            Attribute::Int(value) => (number(3, *value), 2),
            Attribute::Ints(values) => (values.iter().flat_map(|value| number(8, *value)).collect(), 7),
        };
        bytes.extend(chunk(5, [chunk(1, name), value, number(20, kind)].concat()));
    }
    bytes
}

/// A constant tensor of f32.
pub fn tensor(name: &str, dims: &[i64], values: &[f32]) -> Bytes {
    let raw: Bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let dims = dims.iter().flat_map(|dim| number(1, *dim));
    [dims.collect(), number(2, 1), chunk(8, name), chunk(9, raw)].concat()
}

/// An input or output of f32; a negative dimension is dynamic.
pub fn value(name: &str, dims: &[i64]) -> Bytes {
    let dim = |dim: &i64| chunk(1, if *dim < 0 { chunk(2, "N") } else { number(1, *dim) });
    let shape: Bytes = dims.iter().flat_map(dim).collect();
    [chunk(1, name), chunk(2, chunk(1, [number(1, 1), chunk(2, shape)].concat()))].concat()
}

/// A whole model.
pub fn model(nodes: &[Bytes], tensors: &[Bytes], inputs: &[Bytes], outputs: &[Bytes]) -> Bytes {
    let mut graph: Bytes = nodes.iter().flat_map(|node| chunk(1, node)).collect();
    graph.extend(chunk(2, "graph"));
    graph.extend(tensors.iter().flat_map(|tensor| chunk(5, tensor)));
    graph.extend(inputs.iter().flat_map(|input| chunk(11, input)));
    graph.extend(outputs.iter().flat_map(|output| chunk(12, output)));
    [number(1, 8), chunk(7, graph), chunk(8, [chunk(1, ""), number(2, 17)].concat())].concat()
}

/// The mean of each channel: `[batch, 3, 8, 8]` → `[batch, 3]`.
pub fn channel_means(batch: i64) -> Bytes {
    let nodes = [node("GlobalAveragePool", &["x"], "pool", &[]), node("Flatten", &["pool"], "means", &[])];
    model(&nodes, &[], &[value("x", &[batch, 3, 8, 8])], &[value("means", &[batch, 3])])
}

/// Writes a model directory whose preprocessing gives 8 × 8 raw pixel values, `[0, 255]`.
pub fn write_directory(directory: &Path, model: &[u8]) {
    let config =
        r#"{"image_processor_type": "ViTImageProcessor", "size": 8, "do_rescale": false, "do_normalize": false}"#;
    std::fs::write(directory.join("preprocessor_config.json"), config).unwrap();
    std::fs::write(directory.join("model.onnx"), model).unwrap();
}
