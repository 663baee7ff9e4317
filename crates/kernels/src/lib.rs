//! The differentiable tensor operations that candle lacks: fused on CPU in f32, composed from candle's own elsewhere.
//!
//! Every operation stands twice: in the file of its name as the fast form, and in [`composed`] as the slow, obvious form.
//! `tests/twins.rs` holds the two together, values and gradients. This crate knows no models and no files.
//!
//! All sums run over fixed blocks in a fixed order, so a result is the same bytes for any number of threads.

mod backward;
mod buffers;
pub mod composed;
mod fused;
mod gradient;
mod host;
mod keys;
mod lanes;
mod sequences;
mod small;
mod threads;

mod activation;
mod add;
mod affine;
mod attention;
mod bf16;
mod disentangled;
mod dropout;
mod embedding;
mod encoder;
mod feed_forward;
mod gated_feed_forward;
mod layer_norm;
mod linear;
mod matmul;
mod mean;
mod pre_norm;
mod product;
mod relation;
mod relative;
mod residual_norm;
mod rotary;
mod rotary_attention;
mod self_attention;
mod single;

mod adamw;
mod ceilings;
mod deferred;
mod sgd;

pub use activation::{Activation, Gelu, gelu};
pub use adamw::{AdamW, Moments, adamw, adamw_on_host, sum_of_squares};
pub use add::add;
pub use affine::Affine;
pub use attention::{attention, attention_in_window};
pub use backward::{Gradients, backward, backward_keeping};
pub use bf16::{Packed, bf16_path, matmul_bf16};
pub use ceilings::{ceiling_bf16, ceiling_f32, memory_rate, sums_bf16, sums_f32};
pub use composed::{log_softmax, relu, tanh};
pub use deferred::{Missed, adamw_rows, catch_up, settle};
pub use dropout::{dropout, dropout_rows};
pub use embedding::embedding;
pub use encoder::{Half, encoder, encoder_of_first_rows};
pub use feed_forward::FeedForward;
pub use gated_feed_forward::GatedFeedForward;
pub use gradient::{Gradient, Rows};
pub use keys::{Dropout, Keys};
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use matmul::{
    Onto, Threads, View, matmul, matmul_gemm, matrix_path, matrix_rate, matrix_rate_bf16,
};
pub use mean::mean_of_texts;
pub use pre_norm::PreNorm;
pub use product::Precision;
pub use relation::{Buckets, Disentangled, Relation, RelativeBias};
pub use rotary::{Rotary, rotary};
pub use rotary_attention::{Reach, RotaryAttention};
pub use self_attention::{AttentionDropout, SelfAttention};
pub use sequences::Sequences;
pub use sgd::{Sgd, sgd};
pub use threads::{awake, on_the_pool};
