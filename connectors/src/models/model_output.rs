//! From a model's outputs to vectors: chooses the output, takes the embedding out of it, scales it to unit length.

use pipeline::Rejection;

/// An output of the graph.
pub(super) struct GraphOutput<'a> {
    pub(super) name: &'a str,
    /// `None` if the graph does not declare it.
    pub(super) rank: Option<usize>,
    pub(super) is_float: bool,
}

/// Chooses the output that holds the vector: the one the config names, else by the names and ranks of published models.
///
/// # Errors
/// A sentence that names the outputs there are.
pub(super) fn choose(outputs: &[GraphOutput<'_>], wanted: Option<&str>) -> Result<String, String> {
    let names: Vec<&str> = outputs.iter().map(|output| output.name).collect();
    let names = names.join(", ");
    let chosen = match wanted {
        Some(name) => outputs.iter().find(|output| output.name == name),
        None => by_convention(outputs),
    };
    let Some(chosen) = chosen else {
        return Err(match wanted {
            Some(name) => format!("it has no output {name:?}; its outputs are: {names}"),
            None => "it has no outputs".into(),
        });
    };
    if !chosen.is_float {
        let name = chosen.name;
        return Err(format!(
            "its output {name:?} is not f32: use the fp32 or the quantised variant (outputs: {names})"
        ));
    }
    Ok(chosen.name.to_string())
}

fn by_convention<'o, 'a>(outputs: &'o [GraphOutput<'a>]) -> Option<&'o GraphOutput<'a>> {
    let named = |name: &str| outputs.iter().find(|output| output.name == name);
    named("image_embeds")
        .or_else(|| named("pooler_output"))
        .or_else(|| outputs.iter().find(|output| output.rank == Some(2)))
        .or_else(|| named("last_hidden_state"))
        .or_else(|| outputs.first())
}

/// Takes one row per image out of a batch's output: `[n, d]` as it is, the first token (CLS) of `[n, tokens, d]`, and
/// `[n, d, 1, 1]` flattened. Returns the rows one after another, and `d`.
///
/// # Errors
/// A sentence with the shape found and the shape expected.
pub(super) fn rows(shape: &[i64], values: &[f32], images: usize) -> Result<(Vec<f32>, usize), String> {
    let dims: Vec<usize> = shape.iter().map(|dim| usize::try_from(*dim).unwrap_or(0)).collect();
    let (stride, dim) = match *dims.as_slice() {
        [_, d] => (d, d),
        [_, tokens, d] => (tokens * d, d),
        [_, d, 1, 1] => (d, d),
        [_, _, _, _] => {
            return Err(format!(
                "its output has shape {shape:?}, a feature map: use a model that ends in a global pool"
            ));
        }
        _ => return Err(format!("its output has shape {shape:?}, expected [images, d] or [images, tokens, d]")),
    };
    if dims[0] < images || dim == 0 || values.len() < images * stride {
        return Err(format!(
            "its output has shape {shape:?} for a batch of {images}: the first dimension must be the batch"
        ));
    }
    let rows = values.chunks_exact(stride).take(images).flat_map(|row| &row[..dim]).copied().collect();
    Ok((rows, dim))
}

/// Scales a row to unit length.
///
/// # Errors
/// 422 `vector_not_finite` if a value is NaN or infinite, or all are zero.
pub(super) fn unit(row: &[f32]) -> Result<Vec<f32>, Rejection> {
    let energy: f64 = row.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
    let length = energy.sqrt();
    if !length.is_normal() {
        let detail = "the model gives no finite vector for this image: send another image";
        return Err(Rejection::unusable("vector_not_finite", detail));
    }
    Ok(row.iter().map(|value| (f64::from(*value) / length) as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(name: &str, rank: usize) -> GraphOutput<'_> {
        GraphOutput { name, rank: Some(rank), is_float: true }
    }

    #[test]
    fn the_projected_output_wins() {
        let clip = [output("last_hidden_state", 3), output("pooler_output", 2), output("image_embeds", 2)];
        assert_eq!(choose(&clip, None).unwrap(), "image_embeds");
        assert_eq!(choose(&clip[..2], None).unwrap(), "pooler_output");
        assert_eq!(choose(&clip[..1], None).unwrap(), "last_hidden_state");
        assert_eq!(choose(&clip, Some("last_hidden_state")).unwrap(), "last_hidden_state");
        assert_eq!(choose(&[output("map", 4), output("features", 2)], None).unwrap(), "features");
        assert_eq!(choose(&[output("softmaxout_1", 4)], None).unwrap(), "softmaxout_1");
        assert!(choose(&clip, Some("x")).unwrap_err().contains("last_hidden_state, pooler_output, image_embeds"));
        let half = GraphOutput { name: "image_embeds", rank: Some(2), is_float: false };
        assert!(choose(&[half], None).unwrap_err().contains("not f32"));
        assert!(choose(&[], None).is_err());
    }

    #[test]
    fn rows_are_cut_by_rank() {
        let values: Vec<f32> = (0..12).map(|value| value as f32).collect();
        assert_eq!(rows(&[3, 4], &values, 2).unwrap(), (values[..8].to_vec(), 4));
        assert_eq!(rows(&[2, 3, 2], &values, 2).unwrap(), (vec![0., 1., 6., 7.], 2));
        assert_eq!(rows(&[2, 6, 1, 1], &values, 2).unwrap(), (values.clone(), 6));
        for (shape, images) in [(vec![12], 1), (vec![1, 3, 2, 2], 1), (vec![1, 12], 2), (vec![2, 0], 2)] {
            assert!(rows(&shape, &values, images).is_err(), "{shape:?}");
        }
    }

    #[test]
    fn a_vector_without_direction_is_refused() {
        assert_eq!(unit(&[3.0, 4.0]).unwrap(), [0.6, 0.8]);
        assert_eq!(unit(&[1e30, 0.0]).unwrap(), [1.0, 0.0]);
        for row in [[f32::NAN, 1.0], [f32::INFINITY, 1.0], [0.0, 0.0]] {
            assert_eq!(unit(&row).unwrap_err().code, "vector_not_finite");
        }
    }
}
