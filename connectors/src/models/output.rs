//! From what a model gives to vectors: which output, which part of it, unit length.

use pipeline::Rejection;

/// An output as the graph declares it.
pub(super) struct Declared<'a> {
    pub(super) name: &'a str,
    /// `None` if the graph does not say.
    pub(super) rank: Option<usize>,
    pub(super) is_float: bool,
}

/// Chooses the output that holds the vector: the one the config names, else by the names and ranks models are published
/// with.
///
/// # Errors
/// A sentence naming the outputs there are.
pub(super) fn choose(outputs: &[Declared<'_>], wanted: Option<&str>) -> Result<String, String> {
    let names: Vec<&str> = outputs.iter().map(|output| output.name).collect();
    let names = names.join(", ");
    let chosen = match wanted {
        Some(name) => outputs.iter().find(|output| output.name == name),
        None => by_custom(outputs),
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

fn by_custom<'o, 'a>(outputs: &'o [Declared<'a>]) -> Option<&'o Declared<'a>> {
    let named = |name: &str| outputs.iter().find(|output| output.name == name);
    named("image_embeds")
        .or_else(|| named("pooler_output"))
        .or_else(|| outputs.iter().find(|output| output.rank == Some(2)))
        .or_else(|| named("last_hidden_state"))
        .or_else(|| outputs.first())
}

/// Cuts a batch's output into one row per image: `[n, d]` as it is, of `[n, tokens, d]` the first token (CLS), and
/// `[n, d, 1, 1]` flattened. Returns the rows one after another, and `d`.
///
/// # Errors
/// A sentence saying what the shape is and what it should be.
pub(super) fn rows(shape: &[i64], values: &[f32], images: usize) -> Result<(Vec<f32>, usize), String> {
    let dims: Vec<usize> = shape.iter().map(|dim| usize::try_from(*dim).unwrap_or(0)).collect();
    let (stride, dim) = match *dims.as_slice() {
        [_, d] => (d, d),
        [_, tokens, d] => (tokens * d, d),
        [_, d, 1, 1] => (d, d),
        [_, _, _, _] => {
            return Err(format!("its output has shape {shape:?}, a map: use a model that ends in a global pool"));
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
        let detail = "the model gives no finite vector for this image: send another picture";
        return Err(Rejection::unusable("vector_not_finite", detail));
    }
    Ok(row.iter().map(|value| (f64::from(*value) / length) as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(name: &str, rank: usize) -> Declared<'_> {
        Declared { name, rank: Some(rank), is_float: true }
    }

    #[test]
    fn the_projected_output_wins() {
        let clip = [declared("last_hidden_state", 3), declared("pooler_output", 2), declared("image_embeds", 2)];
        assert_eq!(choose(&clip, None).unwrap(), "image_embeds");
        assert_eq!(choose(&clip[..2], None).unwrap(), "pooler_output");
        assert_eq!(choose(&clip[..1], None).unwrap(), "last_hidden_state");
        assert_eq!(choose(&clip, Some("last_hidden_state")).unwrap(), "last_hidden_state");
        assert_eq!(choose(&[declared("map", 4), declared("features", 2)], None).unwrap(), "features");
        assert_eq!(choose(&[declared("softmaxout_1", 4)], None).unwrap(), "softmaxout_1");
        assert!(choose(&clip, Some("x")).unwrap_err().contains("last_hidden_state, pooler_output, image_embeds"));
        let half = Declared { name: "image_embeds", rank: Some(2), is_float: false };
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
