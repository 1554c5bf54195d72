//! Test fixture: a small ONNX model, the mean colour of each cell of a 4 × 4 grid (48 values).
//!
//! The protobuf is written by hand; field numbers are those of `onnx.proto` (ONNX IR version 8, opset 13).

use std::path::Path;

/// A protobuf message being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn text(self, field: u64, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    fn message(self, field: u64, value: Message) -> Self {
        self.bytes(field, &value.0)
    }
}

fn tensor(name: &str, sides: &[u64]) -> Message {
    let batch = Message::default().message(1, Message::default().text(2, "n"));
    let shape = sides.iter().fold(batch, |shape, side| shape.message(1, Message::default().number(1, *side)));
    let float32 = Message::default().number(1, 1).message(2, shape);
    Message::default().text(1, name).message(2, Message::default().message(1, float32))
}

fn ints(name: &str, values: [u64; 2]) -> Message {
    let attribute = Message::default().text(1, name).number(20, 7);
    values.into_iter().fold(attribute, |attribute, value| attribute.number(8, value))
}

/// Writes the model and its preprocessing into `folder`.
pub fn write_grid_model(folder: &Path) {
    let pool = Message::default()
        .text(1, "pixel_values")
        .text(2, "cells")
        .text(4, "AveragePool")
        .message(5, ints("kernel_shape", [56, 56]))
        .message(5, ints("strides", [56, 56]));
    let flatten = Message::default().text(1, "cells").text(2, "image_embeds").text(4, "Flatten");
    let graph = Message::default()
        .message(1, pool)
        .message(1, flatten)
        .text(2, "grid")
        .message(11, tensor("pixel_values", &[3, 224, 224]))
        .message(12, tensor("image_embeds", &[48]));
    let opset = Message::default().text(1, "").number(2, 13);
    let model = Message::default().number(1, 8).message(7, graph).message(8, opset);
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("model.onnx"), model.0).unwrap();
    let preprocessing = r#"{"image_processor_type": "CLIPImageProcessor", "do_resize": true, "size": {"shortest_edge": 224},
        "resample": 3, "do_center_crop": true, "crop_size": {"height": 224, "width": 224}, "do_rescale": true,
        "rescale_factor": 0.00392156862745098, "do_normalize": true, "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5], "do_convert_rgb": true}"#;
    std::fs::write(folder.join("preprocessor_config.json"), preprocessing).unwrap();
}
