//! Loops compiled for the widest vectors that the processor has.

/// Functions whose body is compiled once for every width of vectors there may be; a call takes the
/// widest one that this processor has. Lifetimes of arguments must be named, and what the body calls
/// must be inlined into it to profit.
///
/// (A closure does not do: the compiler leaves one that is not tiny where it is, outside of what is
/// compiled for wide vectors, and says nothing. Most of these loops ran so for a while.)
macro_rules! wide {
    ($(
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $(<$($life:lifetime),+>)? ($($arg:ident: $kind:ty),+ $(,)?)
            $(-> $out:ty)? $body:block
    )+) => {$(
        $(#[$meta])*
        $vis fn $name $(<$($life),+>)? ($($arg: $kind),+) $(-> $out)? {
            struct Call $(<$($life),+>)? ($($kind),+);

            impl $(<$($life),+>)? pulp::WithSimd for Call $(<$($life),+>)? {
                type Output = $crate::ops::wide!(@output $($out)?);

                #[inline(always)]
                fn with_simd<S: pulp::Simd>(self, _: S) -> Self::Output {
                    // A function, because references that are its arguments are known to be apart;
                    // those in a structure are not.
                    #[inline(always)]
                    fn body $(<$($life),+>)? ($($arg: $kind),+) $(-> $out)? $body

                    let Call($($arg),+) = self;
                    body($($arg),+)
                }
            }

            pulp::Arch::new().dispatch(Call($($arg),+))
        }
    )+};
    (@output) => { () };
    (@output $out:ty) => { $out };
}

pub(crate) use wide;
