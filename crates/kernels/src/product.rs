//! Large matrix products in either precision behind one call.

use crate::affine::{column_sums, fill_rows};
use crate::bf16::{
    self, Packed, Weight, matmul_bf16, matmul_bf16_by, matmul_bf16_by_from, matmul_bf16_from,
};
use crate::matmul::{Onto, Threads, View, matmul};

/// What matrix products are made of. Weights, activations, gradients and all sums stay f32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    #[default]
    F32,
    /// Operands rounded to bf16 (8 bits of precision), products added up in f32: several times as fast where the
    /// processor multiplies such numbers in hardware.
    Bf16,
}

/// A gradient dy (N, O) as the way back needs it: for dx = dy·W, as dyᵀ for dW = dyᵀ·x, and the sums of its rows, (O,).
pub(crate) struct Gradient<'x> {
    pub left: Operand<'x>,
    pub across: Operand<'x>,
    pub sums: Vec<f32>,
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

impl Precision {
    /// dy (N, O) and dyᵀ, to multiply from the left.
    pub(crate) fn both_sides(self, dy: &[f32], o: usize) -> [Operand<'_>; 2] {
        let view = View::rows_of(dy.len() / o, o);
        match self {
            Precision::F32 => [Operand::Plain(dy, view), Operand::Plain(dy, view.t())],
            Precision::Bf16 => {
                let Gradient { left, across, .. } = bf16::Gradient::of_rows(dy, o).into();
                [left, across]
            }
        }
    }

    pub(crate) fn gradient(self, dy: &[f32], o: usize) -> Gradient<'_> {
        match self {
            Precision::F32 => {
                let [left, across] = self.both_sides(dy, o);
                Gradient { left, across, sums: column_sums(dy, o) }
            }
            Precision::Bf16 => bf16::Gradient::of_rows(dy, o).into(),
        }
    }
}

impl From<bf16::Gradient> for Gradient<'_> {
    fn from(dy: bf16::Gradient) -> Self {
        let bf16::Gradient { left, across, sums } = dy;
        Gradient { left: Operand::Packed(left), across: Operand::Packed(across), sums }
    }
}

/// y (R, C) = left (R, I) · right (I, C), or added onto y, row after row. A plain right operand beside a packed left one is rounded
/// and laid out on the way: a weight, that is used once before it changes.
pub(crate) fn product(y: &mut [f32], onto: Onto, left: &Operand, right: &Operand) {
    match (left, right) {
        (Operand::Plain(a, a_view), Operand::Plain(b, b_view)) => {
            let y_view = View::rows_of(a_view.rows, b_view.columns);
            matmul(y, y_view, onto, a, *a_view, b, *b_view, Threads::All);
        }
        (Operand::Packed(left), Operand::Packed(right)) => matmul_bf16(y, onto, left, right),
        (Operand::Packed(left), &Operand::Plain(x, view)) => {
            matmul_bf16_by(y, onto, left, Weight { x, view });
        }
        (Operand::Plain(..), Operand::Packed(_)) => panic!("operands of two precisions"),
    }
}

/// y (R, C) = left · right + row, the row (C,) on each row of the product.
pub(crate) fn product_from(y: &mut [f32], row: &[f32], left: &Operand, right: &Operand) {
    match (left, right) {
        (Operand::Packed(left), Operand::Packed(right)) => matmul_bf16_from(y, row, left, right),
        (Operand::Packed(left), &Operand::Plain(x, view)) => {
            matmul_bf16_by_from(y, row, left, Weight { x, view });
        }
        _ => {
            fill_rows(y, row);
            product(y, Onto::Add, left, right);
        }
    }
}
