//! Large matrix products in either precision behind one call.

use crate::affine::fill_rows;
use crate::bf16::{Packed, matmul_bf16, matmul_bf16_from};
use crate::matmul::{Onto, Threads, View, matmul};

/// What matrix products are made of. Weights and activations stay f32 either way, and on the CPU gradients and all sums; on other
/// devices a product in bf16 comes out in bf16, that of a weight's gradient too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    #[default]
    F32,
    /// Operands rounded to bf16 (8 bits of precision), products added up in f32: several times as fast where the
    /// processor multiplies such numbers in hardware.
    Bf16,
}

/// A matrix that is ready to be multiplied, perhaps several times.
pub(crate) enum Operand<'x> {
    Plain(&'x [f32], View),
    Packed(Packed),
}

impl Precision {
    /// An (R, I) matrix for the left side.
    pub(crate) fn left(self, x: &[f32], view: View) -> Operand<'_> {
        match self {
            Precision::F32 => Operand::Plain(x, view),
            Precision::Bf16 => Operand::Packed(Packed::left(x, view)),
        }
    }

    /// An (I, C) matrix for the right side.
    pub(crate) fn right(self, x: &[f32], view: View) -> Operand<'_> {
        match self {
            Precision::F32 => Operand::Plain(x, view),
            Precision::Bf16 => Operand::Packed(Packed::right(x, view)),
        }
    }
}

/// y (R, C) = left (R, I) · right (I, C), or added onto y, row after row.
pub(crate) fn product(y: &mut [f32], onto: Onto, left: &Operand, right: &Operand) {
    match (left, right) {
        (Operand::Plain(a, a_view), Operand::Plain(b, b_view)) => {
            let y_view = View::rows_of(a_view.rows, b_view.columns);
            matmul(y, y_view, onto, a, *a_view, b, *b_view, Threads::All);
        }
        (Operand::Packed(left), Operand::Packed(right)) => matmul_bf16(y, onto, left, right),
        _ => panic!("operands of two precisions"),
    }
}

/// y (R, C) = left · right + row, the row (C,) on each row of the product.
pub(crate) fn product_from(y: &mut [f32], row: &[f32], left: &Operand, right: &Operand) {
    match (left, right) {
        (Operand::Packed(left), Operand::Packed(right)) => matmul_bf16_from(y, row, left, right),
        _ => {
            fill_rows(y, row);
            product(y, Onto::Add, left, right);
        }
    }
}
