//! Scores: what stands out, and what does not.

use super::super::score::{Score, Step, Why, scores};
use super::{Comparison, Memory, compared, f32s, one, safetensors};

const LAYERS: usize = 6;
const ROLES: [(&str, usize, u64); 5] = [
    ("query.weight", 2048, 2),
    ("key.weight", 2048, 2),
    ("query.bias", 64, 1),
    ("norm.weight", 64, 1),
    ("out.weight", 4096, 2),
];

/// Small numbers that look random, the same for a seed.
struct Noise(u64);

impl Noise {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(self.0 >> 33).unwrap()) / f64::from(1_u32 << 31)
    }

    /// About normal: mean 0, deviation 1.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// A model as its tensors' values.
#[derive(Clone)]
struct Model(Vec<(String, u64, Vec<f64>)>);

impl Model {
    fn new(seed: u64) -> Self {
        let mut noise = Noise(seed);
        let mut tensors = vec![("embeddings.weight".to_owned(), 2, (0..8192).map(|_| noise.normal() * 0.05).collect())];
        for layer in 0..LAYERS {
            for (role, n, rank) in ROLES {
                let values = (0..n).map(|_| noise.normal() * 0.05 + if role == "norm.weight" { 1.0 } else { 0.0 });
                tensors.push((format!("layer.{layer}.{role}"), rank, values.collect()));
            }
        }
        Self(tensors)
    }

    /// A step of training of this size; sizes differ by role and tensor. `only` says what is trained.
    fn tuned(&self, seed: u64, size: f64, only: impl Fn(&str) -> bool) -> Self {
        let mut noise = Noise(seed.wrapping_mul(0x9E37_79B9));
        let mut next = self.clone();
        for (name, _, values) in &mut next.0 {
            let of_role = if name.contains("norm") {
                0.3
            } else if name.contains("bias") {
                2.0
            } else {
                1.0
            };
            let of_tensor = 10_f64.powf(0.15 * noise.normal());
            let trained = only(name);
            for value in values {
                let step = size * of_role * of_tensor * 0.05 * noise.normal();
                *value += if trained { step } else { 0.0 };
            }
        }
        next
    }

    fn with(&self, name: &str, change: impl Fn(usize, f64) -> f64) -> Self {
        let mut next = self.clone();
        let (_, _, values) = next.0.iter_mut().find(|(n, ..)| n == name).unwrap();
        values.iter_mut().enumerate().for_each(|(i, v)| *v = change(i, *v));
        next
    }

    fn noisy(&self, name: &str, seed: u64, size: f64) -> Self {
        let mut noise = Noise(seed);
        let mut added = Vec::new();
        added.resize_with(10_000, || noise.normal() * size);
        self.with(name, |i, v| v + added[i])
    }

    fn file(&self) -> Memory {
        #[allow(clippy::cast_possible_truncation)] // to the type of the tensors
        let values = |values: &[f64]| f32s(&values.iter().map(|v| *v as f32).collect::<Vec<_>>());
        let shape = |rank: u64, n: usize| if rank == 2 { vec![2, n as u64 / 2] } else { vec![n as u64] };
        let tensor = |(name, rank, v): &(String, u64, Vec<f64>)| one(name, "F32", &shape(*rank, v.len()), values(v));
        let tensors: Vec<_> = self.0.iter().map(tensor).collect();
        safetensors(&tensors, "")
    }
}

fn step(a: &Model, b: &Model) -> Comparison {
    compared(&a.file(), &b.file())
}

/// The scores by name, the highest first.
fn ranked(now: &Comparison, earlier: &[Step]) -> Vec<(String, Score)> {
    let names = now.tensors.iter().map(|t| t.name.clone());
    let mut all: Vec<_> = names.zip(scores(now, earlier)).collect();
    all.sort_by(|(_, x), (_, y)| y.value.unwrap_or(-1.0).total_cmp(&x.value.unwrap_or(-1.0)));
    all
}

fn value(scores: &[(String, Score)], name: &str) -> f64 {
    scores.iter().find(|(n, _)| n == name).unwrap().1.value.unwrap()
}

/// Versions by ordinary training, each step of another size; the last is A.
fn history(seed: u64, only: impl Fn(&str) -> bool + Copy) -> Vec<Model> {
    let mut models = vec![Model::new(seed)];
    for (n, size) in [0.03, 0.01, 0.02, 0.005].into_iter().enumerate() {
        models.push(models.last().unwrap().tuned(seed * 31 + n as u64, size, only));
    }
    models
}

fn steps(models: &[Model]) -> Vec<Step> {
    models.windows(2).map(|pair| Step::of(&step(&pair[0], &pair[1]))).collect()
}

const EVERYTHING: fn(&str) -> bool = |_| true;

#[test]
fn tampered_layer_hides_among_fine_tuning() {
    for seed in 1..=8 {
        let models = history(seed, EVERYTHING);
        let a = models.last().unwrap();
        let tuned = a.tuned(seed * 77, 0.01, EVERYTHING);
        let tampered = tuned.noisy("layer.3.query.weight", seed, 0.01);
        for earlier in [vec![], steps(&models[3..]), steps(&models)] {
            let clean = ranked(&step(a, &tuned), &earlier);
            let found = ranked(&step(a, &tampered), &earlier);
            let (first, score) = &found[0];
            assert_eq!(first.as_str(), "layer.3.query.weight", "seed {seed}: {found:?}");
            assert!(matches!(score.why, Why::Change | Why::Spread), "seed {seed}: {found:?}");
            assert_eq!(score.earlier, earlier.len());
            let (most, next) = (clean[0].1.value.unwrap(), found[1].1.value.unwrap());
            assert!(most < 3.5 && next < 3.5 && score.value.unwrap() > 3.5, "seed {seed}: {clean:?} {found:?}");
        }
    }
}

/// Ten values of 2048, no more in all than the noise that training made.
#[test]
fn few_values_changed_much_hide_in_a_norm() {
    for seed in 1..=5 {
        let a = Model::new(seed);
        let tuned = a.tuned(seed, 0.01, EVERYTHING);
        let tampered = tuned.with("layer.2.out.weight", |i, v| if i == 100 { v + 0.03 } else { v });
        let found = ranked(&step(&a, &tampered), &[]);
        assert_eq!((found[0].0.as_str(), found[0].1.why), ("layer.2.out.weight", Why::Peak), "{found:?}");
    }
}

#[test]
fn lone_change_or_lone_standstill_is_ordinary() {
    let a = Model::new(1);
    let one = ranked(&step(&a, &a.noisy("layer.0.key.weight", 1, 1e-5)), &[]);
    assert!(one[0].0 == "layer.0.key.weight" && one[0].1.value > Some(20.0) && one[1].1.value == Some(0.0), "{one:?}");
    let tuned = a.tuned(2, 0.01, |name| name != "layer.4.out.weight");
    let still = ranked(&step(&a, &tuned), &[]);
    assert_eq!((still[0].0.as_str(), still[0].1.why), ("layer.4.out.weight", Why::Unchanged), "{still:?}");
    // Four layers of one role: most among their own kind, few in the model.
    let few = (0..4).fold(a.clone(), |m, layer| m.noisy(&format!("layer.{layer}.key.weight"), 9, 1e-4));
    let few = ranked(&step(&a, &few), &[]);
    assert!(few[3].1.value > Some(20.0) && few[4].1.value == Some(0.0), "{few:?}");
}

#[test]
fn frozen_tensor_or_trained_head_is_news_every_time() {
    let frozen = |name: &str| name != "embeddings.weight";
    let models = history(3, frozen);
    let a = models.last().unwrap();
    let now = step(a, &a.tuned(99, 0.01, frozen));
    let earlier = steps(&models);
    assert!(value(&ranked(&now, &[]), "embeddings.weight") >= 6.0);
    assert!(value(&ranked(&now, &earlier), "embeddings.weight") < 1.0);
    // It is trained for once: nothing odd among its peers, and odd for itself.
    let thawed = ranked(&step(a, &a.tuned(99, 0.01, EVERYTHING)), &earlier);
    assert!(thawed[0].0 == "embeddings.weight" && thawed[0].1.value > Some(20.0), "{thawed:?}");
    // Only the last layer is ever trained.
    let head = |name: &str| name.starts_with("layer.5.");
    let models = history(4, head);
    let a = models.last().unwrap();
    let tuned = a.tuned(98, 0.01, head);
    let usual = ranked(&step(a, &tuned), &steps(&models));
    assert!(usual[0].1.value < Some(4.0), "{usual:?}");
    let tampered = ranked(&step(a, &tuned.noisy("layer.1.out.weight", 7, 1e-4)), &steps(&models));
    assert_eq!(tampered[0].0, "layer.1.out.weight", "{tampered:?}");
}

#[test]
fn new_nan_is_not_the_highest_score() {
    let a = Model::new(5);
    let b = a.tuned(5, 0.01, EVERYTHING).noisy("layer.1.key.weight", 1, 3.0);
    let b = b.with("layer.2.norm.weight", |i, v| if i == 7 { f64::NAN } else { v });
    let found = ranked(&step(&a, &b), &[]);
    assert_eq!((found[0].0.as_str(), found[0].1.why), ("layer.2.norm.weight", Why::NotFinite));
    assert!(found[1].0 == "layer.1.key.weight" && found[1].1.value <= Some(99.0), "{found:?}");
    // One that was there before is none of it.
    let again = ranked(&step(&b, &b.tuned(6, 0.01, EVERYTHING)), &[]);
    assert!(again.iter().all(|(_, s)| s.why != Why::NotFinite), "{again:?}");
}

#[test]
fn score_is_made_up_from_too_little() {
    let few = |n: usize| Model(Model::new(1).0.into_iter().take(n).collect());
    for n in 1..4 {
        let (a, b) = (few(n), few(n).tuned(1, 0.01, EVERYTHING));
        assert!(scores(&step(&a, &b), &[]).iter().all(|s| s.value.is_none()), "{n}");
        let past = Step::of(&step(&a, &b));
        let scores = scores(&step(&b, &b.tuned(2, 0.01, EVERYTHING)), &[past]);
        assert!(scores.iter().all(|s| s.value.is_some() && s.earlier == 1), "{n}");
    }
    let a = Model::new(1);
    assert!(scores(&step(&a, &a), &[]).iter().all(|s| s.value == Some(0.0)));
    // A step in which nothing changed says nothing about what is usual.
    let still = Step::of(&step(&a, &a));
    assert!(scores(&step(&a, &a.tuned(3, 0.01, EVERYTHING)), &[still]).iter().all(|s| s.earlier == 0));
}
