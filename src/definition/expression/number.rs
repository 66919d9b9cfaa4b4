//! Numbers in expressions: JSON's one kind of number, reckoned with exactly.
//!
//! CEL has `int`, `uint` and `double`, and refuses to mix them. JSON has numbers, and whether a writer
//! says `10` or `10.0` says nothing about the value; an expression that works for one of them and not
//! for the other fails in front of a customer. So every number in an expression, those written in it
//! included, is a [`Numeral`]: whole numbers and fractions mix, compare by value, and are reckoned with
//! in decimal, so that `0.1 + 0.2` is `0.3` and no digit of a large amount is lost.
//!
//! [`super::unify`] rewrites a compiled expression so that CEL's own kinds of numbers never meet ours.
//!
//! Bounds: numbers with more than [`DIGITS_MAX`] digits before or behind the point pass through, but
//! can't be reckoned with; a quotient that never ends is rounded to [`QUOTIENT_DIGITS`].

use std::any::Any;
use std::cmp::Ordering;
use std::str::FromStr;

use bigdecimal::num_traits::{ToPrimitive, Zero};
use bigdecimal::{BigDecimal, RoundingMode};
use cel::common::traits::{Adder, Comparer, Divider, Modder, Multiplier, Negator, Subtractor};
use cel::common::types::{CelDouble, CelInt, CelString, CelUInt, DYN_TYPE, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{DeclarationError, Env, ExecutionError};
use serde_json::Number;

use crate::definition::problem::shortened;
use crate::numeral;

/// Most digits before the point, and behind it, of a number that is reckoned with.
const DIGITS_MAX: u64 = 1_000;
/// Longest text of such a number, its sign, point and exponent included.
const TEXT_BYTES_MAX: usize = 2_050;
/// Most digits of a fraction that is computed; what is longer is rounded.
const FRACTION_DIGITS_MAX: u64 = 100;
/// Digits of a quotient that never ends.
const QUOTIENT_DIGITS: u64 = 34;
/// Longest number that a message quotes, in characters.
const QUOTED_CHARS_MAX: usize = 40;

/// Makes a number of CEL's one of ours. No source can name it.
pub(super) const NUMBER: &str = "@number";
/// Makes a position in a list of a number of ours.
pub(super) const INDEX: &str = "@index";

// What `type(x)` says: `int` or `double`, by value. Types of our own all the same: CEL finds
// functions by them, and its own would take our numbers for its.
static WHOLE: Type = Type::new_unspecified_type("int");
static FRACTION: Type = Type::new_unspecified_type("double");

/// A number.
#[derive(Debug, Clone)]
pub(super) enum Numeral {
    /// Most are whole and small.
    Whole(i64),
    /// Any other, as it was written.
    Other(Number),
}

impl From<&Number> for Numeral {
    fn from(number: &Number) -> Self {
        match number.as_i64() {
            Some(whole) => Self::Whole(whole),
            None => Self::Other(number.clone()),
        }
    }
}

impl Numeral {
    /// As JSON; one that was only carried is as it came.
    pub fn to_json(&self) -> Number {
        match self {
            Self::Whole(whole) => Number::from(*whole),
            Self::Other(number) => number.clone(),
        }
    }

    fn is_whole(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Other(number) => {
                let text = numeral::canonical(number);
                match text.split_once('e') {
                    Some((_, exponent)) => !exponent.starts_with('-'),
                    None => !text.contains('.'),
                }
            }
        }
    }

    fn exact(&self, operation: &str) -> Result<BigDecimal, ExecutionError> {
        let number = match self {
            Self::Whole(whole) => return Ok(BigDecimal::from(*whole)),
            Self::Other(number) => number,
        };
        let text = numeral::canonical(number);
        // Reading takes the square of the digits' number, and a body may be nothing but digits.
        let exact = Some(&text).filter(|text| text.len() <= TEXT_BYTES_MAX);
        let exact = exact.and_then(|text| BigDecimal::from_str(text).ok());
        exact.filter(is_bounded).ok_or_else(|| {
            let shown = shortened(&text, QUOTED_CHARS_MAX);
            ExecutionError::function_error(
                operation,
                format!("{shown} has more than {DIGITS_MAX} digits before or behind the point, too many to reckon with"),
            )
        })
    }

    fn of(computed: &BigDecimal, operation: &str) -> Result<Self, ExecutionError> {
        let mut computed = computed.normalized();
        if computed.fractional_digit_count() > 0 && computed.digits() > FRACTION_DIGITS_MAX {
            computed = rounded(&computed, FRACTION_DIGITS_MAX);
        }
        if !is_bounded(&computed) {
            let why = format!("overflow: the result has more than {DIGITS_MAX} digits");
            return Err(ExecutionError::function_error(operation, why));
        }
        if computed.is_integer()
            && let Some(whole) = computed.to_i64()
        {
            return Ok(Self::Whole(whole));
        }
        let (digits, exponent) = computed.into_bigint_and_exponent();
        Self::written(&format!("{digits}e{}", -exponent), operation)
    }

    /// Of a numeral's text, in its canonical spelling.
    fn written(text: &str, operation: &str) -> Result<Self, ExecutionError> {
        let number = Number::from_str(text.trim());
        let canonical = number.and_then(|number| Number::from_str(&numeral::canonical(&number)));
        let number = canonical.map_err(|_| {
            let shown = shortened(text, QUOTED_CHARS_MAX);
            ExecutionError::function_error(operation, format!("`{shown}` is not a number"))
        })?;
        Ok(Self::from(&number))
    }

    /// Without what is behind the point.
    fn truncated(&self, operation: &str) -> Result<Self, ExecutionError> {
        if self.is_whole() {
            return Ok(self.clone());
        }
        let exact = self.exact(operation)?;
        Self::of(&exact.with_scale_round(0, RoundingMode::Down), operation)
    }

    fn operate<'b, 'v>(
        &self,
        other: &(dyn Val + 'v),
        operation: &'static str,
        whole: fn(i64, i64) -> Option<i64>,
        exact: fn(&BigDecimal, &BigDecimal) -> BigDecimal,
    ) -> Result<CowVal<'b, 'v>, ExecutionError> {
        let other = operand(other, operation)?;
        if let (Self::Whole(a), Self::Whole(b)) = (self, other)
            && let Some(result) = whole(*a, *b)
        {
            return Ok(CowVal::owned(Self::Whole(result)));
        }
        let result = exact(&self.exact(operation)?, &other.exact(operation)?);
        Self::of(&result, operation).map(CowVal::owned)
    }
}

/// The number on the right of an operator whose left is one.
fn operand<'o>(
    other: &'o (dyn Val + '_),
    operation: &'static str,
) -> Result<&'o Numeral, ExecutionError> {
    other.downcast_ref::<Numeral>().ok_or_else(|| {
        let kind = other.get_type().name();
        let why = format!("a number and {kind} don't go together");
        ExecutionError::function_error(operation, why)
    })
}

fn is_bounded(number: &BigDecimal) -> bool {
    let most = DIGITS_MAX.cast_signed();
    number.digits() <= 2 * DIGITS_MAX
        && number.fractional_digit_count() <= most
        && number.order_of_magnitude() < most
}

fn rounded(number: &BigDecimal, digits: u64) -> BigDecimal {
    match std::num::NonZeroU64::new(digits) {
        Some(digits) => number
            .with_precision_round(digits, RoundingMode::HalfEven)
            .normalized(),
        None => number.clone(),
    }
}

fn quotient(dividend: &BigDecimal, divisor: &BigDecimal) -> BigDecimal {
    let quotient = dividend / divisor;
    if &quotient * divisor == *dividend {
        quotient
    } else {
        rounded(&quotient, QUOTIENT_DIGITS)
    }
}

impl Val for Numeral {
    fn get_type(&self) -> &Type {
        if self.is_whole() { &WHOLE } else { &FRACTION }
    }

    fn cel_type() -> &'static Type {
        &FRACTION
    }

    fn as_adder<'b, 'v>(&'b self) -> Option<&'b (dyn Adder + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_subtractor<'b, 'v>(&'b self) -> Option<&'b (dyn Subtractor + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_multiplier<'b, 'v>(&'b self) -> Option<&'b (dyn Multiplier + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_divider<'b, 'v>(&'b self) -> Option<&'b (dyn Divider + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_modder<'b, 'v>(&'b self) -> Option<&'b (dyn Modder + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_negator<'b, 'v>(&'b self) -> Option<&'b (dyn Negator + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn as_comparer(&self) -> Option<&dyn Comparer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        match (self, other.downcast_ref::<Self>()) {
            (Self::Whole(a), Some(Self::Whole(b))) => a == b,
            (_, Some(other)) => numeral::equal(&self.to_json(), &other.to_json()),
            (_, None) => false,
        }
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Numeral {}

impl Adder for Numeral {
    fn add<'b, 'v>(&'b self, other: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.operate(other, "+", i64::checked_add, |a, b| a + b)
    }
}

impl Subtractor for Numeral {
    fn sub<'b, 'v>(&'b self, other: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.operate(other, "-", i64::checked_sub, |a, b| a - b)
    }
}

impl Multiplier for Numeral {
    fn mul<'b, 'v>(&'b self, other: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.operate(other, "*", i64::checked_mul, |a, b| a * b)
    }
}

impl Divider for Numeral {
    fn div<'b, 'v>(&'b self, other: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        refuse_zero(operand(other, "/")?, "/")?;
        let whole = |a: i64, b: i64| (a.checked_rem(b) == Some(0)).then(|| a / b);
        self.operate(other, "/", whole, quotient)
    }
}

impl Modder for Numeral {
    fn modulo<'b, 'v>(&'b self, other: &(dyn Val + 'v)) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        refuse_zero(operand(other, "%")?, "%")?;
        self.operate(other, "%", i64::checked_rem, |a, b| a % b)
    }
}

fn refuse_zero(divisor: &Numeral, operation: &str) -> Result<(), ExecutionError> {
    if divisor.exact(operation)?.is_zero() {
        return Err(ExecutionError::function_error(
            operation,
            "division by zero",
        ));
    }
    Ok(())
}

impl Negator for Numeral {
    fn negate<'v>(&self) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let negated = match self {
            Self::Whole(whole) if *whole != i64::MIN => Self::Whole(-whole),
            _ => Self::of(&-self.exact("-")?, "-")?,
        };
        Ok(Box::new(negated))
    }
}

impl Comparer for Numeral {
    fn compare(&self, other: &dyn Val) -> Result<Ordering, ExecutionError> {
        let other = operand(other, "comparing")?;
        if let (Self::Whole(a), Self::Whole(b)) = (self, other) {
            return Ok(a.cmp(b));
        }
        Ok(self.exact("comparing")?.cmp(&other.exact("comparing")?))
    }
}

/// Has CEL know the functions that [`super::unify`] puts in, and its own for our numbers.
pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload(NUMBER, "number_dyn", vec![DYN_TYPE], number)?;
    env.add_overload(INDEX, "index_dyn", vec![DYN_TYPE], index)?;
    for (kind, name) in [("int", "whole"), ("double", "fraction")] {
        let functions: [(&str, cel::common::functions::Function); 4] = [
            ("string", string),
            ("int", int),
            ("uint", uint),
            ("double", double),
        ];
        for (function, op) in functions {
            let id = format!("{function}_{name}");
            env.add_overload(function, &id, vec![Type::new_unspecified_type(kind)], op)?;
        }
    }
    Ok(())
}

fn number<'b, 'v>(mut arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let Some(value) = arguments.pop() else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    let number = if let Some(int) = value.downcast_ref::<CelInt>() {
        Numeral::Whole(*int.inner())
    } else if let Some(uint) = value.downcast_ref::<CelUInt>() {
        Numeral::from(&Number::from(*uint.inner()))
    } else if let Some(double) = value.downcast_ref::<CelDouble>() {
        let double = *double.inner();
        let number = Number::from_f64(double).ok_or_else(|| {
            ExecutionError::function_error("number", format!("{double} is not a number"))
        })?;
        Numeral::written(number.as_str(), "number")?
    } else {
        return Ok(value);
    };
    Ok(CowVal::owned(number))
}

fn index<'b, 'v>(mut arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let Some(value) = arguments.pop() else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    let Some(number) = value.downcast_ref::<Numeral>() else {
        return Ok(value);
    };
    let position = numeral::whole_text(&number.to_json()).and_then(|text| text.parse::<i64>().ok());
    let position = position.ok_or_else(|| {
        let shown = shortened(number.to_json().as_str(), QUOTED_CHARS_MAX);
        ExecutionError::function_error("[]", format!("there is no item {shown}"))
    })?;
    Ok(CowVal::owned(CelInt::from(position)))
}

fn string<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let json = only(&arguments, "string")?.to_json();
    let text = numeral::canonical(&json).into_owned();
    Ok(CowVal::owned(CelString::from(text)))
}

fn int<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    only(&arguments, "int")?.truncated("int").map(CowVal::owned)
}

fn uint<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let number = only(&arguments, "uint")?.truncated("uint")?;
    if number.to_json().as_str().starts_with('-') {
        let why = "a negative number is none";
        return Err(ExecutionError::function_error("uint", why));
    }
    Ok(CowVal::owned(number))
}

fn double<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    only(&arguments, "double").cloned().map(CowVal::owned)
}

fn only<'n>(
    arguments: &'n [CowVal<'_, '_>],
    function: &str,
) -> Result<&'n Numeral, ExecutionError> {
    let number = arguments.first().and_then(|value| value.downcast_ref());
    number.ok_or_else(|| ExecutionError::function_error(function, "it takes one value"))
}
