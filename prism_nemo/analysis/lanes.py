"""Vectors in LLVM's own terms for kernels of numba: many small numbers at a time, and comparisons that are counted.

LLVM cuts a vector into the registers of the machine it compiles for, so nothing here is bound to one processor.
"""

from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core import cgutils

BYTES = ir.VectorType(ir.IntType(8), 64)
HALF_BYTES = ir.VectorType(ir.IntType(8), 32)
WORDS = ir.VectorType(ir.IntType(16), 32)
PAIRS = ir.VectorType(ir.IntType(32), 8)
"""Two words in each lane."""
QUADS = ir.VectorType(ir.IntType(64), 4)
"""Four words in each lane; as long as PAIRS."""
FLOATS = ir.VectorType(ir.FloatType(), 8)
DOUBLES = ir.VectorType(ir.DoubleType(), 8)
INDEX = ir.IntType(64)


def same(kind: Any, value: float) -> Any:
    """A constant vector of one value."""
    return ir.Constant(kind, [value] * kind.count)


def intrinsic(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    """Call a function that LLVM itself provides."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}"), arguments)


def address(builder: Any, base: Any, index: Any, kind: Any) -> Any:
    """Where the element `index` behind `base` lies, as a place for a value of `kind`."""
    return builder.bitcast(builder.gep(base, [index]), kind.as_pointer())


def align_stack(builder: Any) -> None:
    """Have the function's stack aligned to cache lines, by a variable that asks for it and looks used.

    LLVM does not do so for the vectors that it puts there for a while, and outside the main thread they came to lie
    across two lines, which cost half of the speed.
    """
    place = cgutils.alloca_once(builder, BYTES)
    place.align = 64
    builder.asm(ir.FunctionType(ir.VoidType(), [place.type]), "", "r", [place], True)


def prefetch(builder: Any, place: Any) -> None:
    """Ask for a line of memory that will be read soon; it may lie beyond the end."""
    word = ir.IntType(32)
    intrinsic(builder, "prefetch.p0", ir.VoidType(), place, word(0), word(3), word(1))  # to read, keep, data


@dataclass(frozen=True, slots=True)
class Lanes:
    """A vector of integers. The other side of an operation is a like one, or one number for all lanes."""

    builder: Any
    value: Any

    @classmethod
    def load(cls, builder: Any, base: Any, index: Any, kind: Any) -> "Lanes":
        """From memory, at whatever alignment."""
        return cls(builder, builder.load(address(builder, base, index, kind), align=1))

    def _like(self, other: "Lanes | int") -> Any:
        return other.value if isinstance(other, Lanes) else same(self.value.type, other)

    def _do(self, name: str, other: "Lanes | int") -> "Lanes":
        return Lanes(self.builder, getattr(self.builder, name)(self.value, self._like(other)))

    def _call(self, name: str, other: "Lanes | int") -> "Lanes":
        kind = self.value.type
        name = f"{name}.v{kind.count}i{kind.element.width}"
        return Lanes(self.builder, intrinsic(self.builder, name, kind, self.value, self._like(other)))

    def __add__(self, other: "Lanes | int") -> "Lanes":
        return self._do("add", other)

    def __sub__(self, other: "Lanes | int") -> "Lanes":
        return self._do("sub", other)

    def __and__(self, other: "Lanes | int") -> "Lanes":
        return self._do("and_", other)

    def __or__(self, other: "Lanes | int") -> "Lanes":
        return self._do("or_", other)

    def __xor__(self, other: "Lanes | int") -> "Lanes":
        return self._do("xor", other)

    def __lshift__(self, bits: int) -> "Lanes":
        return self._do("shl", bits)

    def __rshift__(self, bits: int) -> "Lanes":
        return self._do("lshr", bits)

    def plus(self, other: "Lanes") -> "Lanes":
        """The sum, or the largest number where that is beyond it."""
        return self._call("uadd.sat", other)

    def minus(self, other: "Lanes | int") -> "Lanes":
        """The difference, or zero where that is below it."""
        return self._call("usub.sat", other)

    def at_least(self, other: "Lanes | int") -> "Lanes":
        """The larger of both, as signed numbers."""
        return self._call("smax", other)

    def at_most(self, other: "Lanes | int") -> "Lanes":
        """The smaller of both, as signed numbers."""
        return self._call("smin", other)

    def larger(self, other: "Lanes | int") -> "Lanes":
        """The larger of both, as unsigned numbers."""
        return self._call("umax", other)

    def smaller(self, other: "Lanes | int") -> "Lanes":
        """The smaller of both, as unsigned numbers."""
        return self._call("umin", other)

    def where_negative(self, then: "Lanes | int", otherwise: "Lanes") -> "Lanes":
        """Lane by lane one of two, by the sign bit of this."""
        negative = self.builder.icmp_signed("<", self.value, same(self.value.type, 0))
        return Lanes(self.builder, self.builder.select(negative, otherwise._like(then), otherwise.value))

    def reaches(self, other: "Lanes | int") -> "Lanes":
        """-1 in the lanes where this is as large or larger, as unsigned numbers, else 0."""
        return self._where(self.builder.icmp_unsigned(">=", self.value, self._like(other)))

    def beyond(self, bound: int) -> "Lanes":
        """-1 in the lanes where this is larger, as signed numbers, else 0."""
        return self._where(self.builder.icmp_signed(">", self.value, self._like(bound)))

    def _where(self, mask: Any) -> "Lanes":
        return Lanes(self.builder, self.builder.sext(mask, self.value.type))

    def beside(self, other: "Lanes") -> "Lanes":
        """The lanes of both, one after the other."""
        return self._shuffled(other, range(2 * self.value.type.count))

    def halves(self) -> "Lanes":
        """The first half of the lanes added to the second."""
        half = self.value.type.count // 2
        return self._shuffled(self, range(half)) + self._shuffled(self, range(half, 2 * half))

    def _shuffled(self, other: "Lanes", places: range) -> "Lanes":
        chosen = ir.Constant(ir.VectorType(ir.IntType(32), len(places)), list(places))
        return Lanes(self.builder, self.builder.shuffle_vector(self.value, other.value, chosen))

    def total(self) -> Any:
        """The sum of all lanes, as unsigned numbers, below 65536."""
        wide = ir.VectorType(WORDS.element, self.value.type.count)
        value = self.value if self.value.type == wide else self.builder.zext(self.value, wide)
        summed = intrinsic(self.builder, f"vector.reduce.add.v{wide.count}i16", wide.element, value)
        return self.builder.zext(summed, INDEX)
