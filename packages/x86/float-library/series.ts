/**
 * Power series in 128-bit fixed point. The coefficients are fractions of 2^128: what the title of a function says, nothing fitted.
 * Every function takes its argument as a fraction, high:low, below 1 and leaves its sum in `high`:`low`.
 */
import { high, low, multiplyFraction, setFraction } from './fraction'

let argumentHigh: u64 = 0
let argumentLow: u64 = 0
let alternates: bool = false

function begin(argHigh: u64, argLow: u64, negative: bool, coefficientHigh: u64, coefficientLow: u64): void {
  argumentHigh = argHigh
  argumentLow = argLow
  alternates = negative
  setFraction(coefficientHigh, coefficientLow)
}

/** Horner's rule: sum = coefficient +- argument * sum. */
function step(coefficientHigh: u64, coefficientLow: u64): void {
  multiplyFraction(high, low, argumentHigh, argumentLow)
  if (alternates) setFraction(coefficientHigh - high - u64(coefficientLow < low), coefficientLow - low)
  else {
    const sum = coefficientLow + low
    setFraction(coefficientHigh + high + u64(sum < low), sum)
  }
}

/** 1/3! - t/5! + t^2/7! - ...: sin r = r (1 - r^2 times this at r^2). */
export function sineSeries(valueHigh: u64, valueLow: u64): void {
  begin(valueHigh, valueLow, true, 0x0000000000000000, 0x00000000024b3f31)
  step(0x0000000000000000, 0x0000000746ac70b7)
  step(0x0000000000000000, 0x000013f3ccdd1660)
  step(0x0000000000000000, 0x002ec368262c7034)
  step(0x0000000000000000, 0x5c6e3bdb73d5c630)
  step(0x0000000000000097, 0xa4da340a0ab92651)
  step(0x000000000000ca96, 0x3b81856a53593029)
  step(0x0000000000d73f9f, 0x399dc0f88ec32b58)
  step(0x00000000b092309d, 0x43684be51c198e92)
  step(0x0000006b99159fd5, 0x138e3f9d1f92e0df)
  step(0x00002e3bc74aad8e, 0x671f5583911ca003)
  step(0x000d00d00d00d00d, 0x00d00d00d00d00d0)
  step(0x0222222222222222, 0x2222222222222222)
  step(0x2aaaaaaaaaaaaaaa, 0xaaaaaaaaaaaaaaab)
}

/** 1/2! - t/4! + t^2/6! - ...: cos r = 1 - r^2 times this at r^2. */
export function cosineSeries(valueHigh: u64, valueLow: u64): void {
  begin(valueHigh, valueLow, true, 0x0000000000000000, 0x0000000042862899)
  step(0x0000000000000000, 0x000000c4742fe352)
  step(0x0000000000000000, 0x0001f2cf01972f57)
  step(0x0000000000000000, 0x04338e5b6dfe14a5)
  step(0x0000000000000007, 0x950ae900808941ea)
  step(0x0000000000000b41, 0x3c31dcbecbbdd802)
  step(0x00000000000d73f9, 0xf399dc0f88ec32b6)
  step(0x000000000c9cba54, 0x603e4e905d6f8a2f)
  step(0x00000008f76c77fc, 0x6c4bdaa26d4c3d68)
  step(0x0000049f93edde27, 0xd71cbbc05b4fa99a)
  step(0x0001a01a01a01a01, 0xa01a01a01a01a01a)
  step(0x005b05b05b05b05b, 0x05b05b05b05b05b0)
  step(0x0aaaaaaaaaaaaaaa, 0xaaaaaaaaaaaaaaab)
  step(0x8000000000000000, 0x0000000000000000)
}

/** Half of 1/1! + a/2! + a^2/3! + ...: exp a - 1 = 2 a times this; with alternating signs for -a. */
export function exponentialSeries(negative: bool, valueHigh: u64, valueLow: u64): void {
  begin(valueHigh, valueLow, negative, 0x0000000000000000, 0x00000003a356385c)
  step(0x0000000000000000, 0x000000623a17f1a9)
  step(0x0000000000000000, 0x000009f9e66e8b30)
  step(0x0000000000000000, 0x0000f96780cb97ac)
  step(0x0000000000000000, 0x001761b41316381a)
  step(0x0000000000000000, 0x0219c72db6ff0a53)
  step(0x0000000000000000, 0x2e371dedb9eae318)
  step(0x0000000000000003, 0xca8574804044a0f5)
  step(0x000000000000004b, 0xd26d1a05055c9328)
  step(0x00000000000005a0, 0x9e18ee5f65deec01)
  step(0x000000000000654b, 0x1dc0c2b529ac9814)
  step(0x000000000006b9fc, 0xf9ccee07c476195b)
  step(0x00000000006b9fcf, 0x9ccee07c476195ac)
  step(0x00000000064e5d2a, 0x301f27482eb7c517)
  step(0x000000005849184e, 0xa1b425f28e0cc749)
  step(0x000000047bb63bfe, 0x3625ed5136a61eb4)
  step(0x00000035cc8acfea, 0x89c71fce8fc97070)
  step(0x0000024fc9f6ef13, 0xeb8e5de02da7d4cd)
  step(0x0000171de3a556c7, 0x338faac1c88e5001)
  step(0x0000d00d00d00d00, 0xd00d00d00d00d00d)
  step(0x0006806806806806, 0x8068068068068068)
  step(0x002d82d82d82d82d, 0x82d82d82d82d82d8)
  step(0x0111111111111111, 0x1111111111111111)
  step(0x0555555555555555, 0x5555555555555555)
  step(0x1555555555555555, 0x5555555555555555)
  step(0x4000000000000000, 0x0000000000000000)
  step(0x8000000000000000, 0x0000000000000000)
}

/** Half of 1 + t/3 + t^2/5 + ...: artanh s = 2 s times this at s^2. */
export function logarithmSeries(valueHigh: u64, valueLow: u64): void {
  begin(valueHigh, valueLow, false, 0x031f3831f3831f38, 0x31f3831f3831f383)
  step(0x0348348348348348, 0x3483483483483483)
  step(0x03759f22983759f2, 0x2983759f2298375a)
  step(0x03a83a83a83a83a8, 0x3a83a83a83a83a84)
  step(0x03e0f83e0f83e0f8, 0x3e0f83e0f83e0f84)
  step(0x0421084210842108, 0x4210842108421084)
  step(0x0469ee58469ee584, 0x69ee58469ee5846a)
  step(0x04bda12f684bda12, 0xf684bda12f684bda)
  step(0x051eb851eb851eb8, 0x51eb851eb851eb85)
  step(0x0590b21642c8590b, 0x21642c8590b21643)
  step(0x0618618618618618, 0x6186186186186186)
  step(0x06bca1af286bca1a, 0xf286bca1af286bca)
  step(0x0787878787878787, 0x8787878787878788)
  step(0x0888888888888888, 0x8888888888888889)
  step(0x09d89d89d89d89d8, 0x9d89d89d89d89d8a)
  step(0x0ba2e8ba2e8ba2e8, 0xba2e8ba2e8ba2e8c)
  step(0x0e38e38e38e38e38, 0xe38e38e38e38e38e)
  step(0x1249249249249249, 0x2492492492492492)
  step(0x1999999999999999, 0x999999999999999a)
  step(0x2aaaaaaaaaaaaaaa, 0xaaaaaaaaaaaaaaab)
  step(0x8000000000000000, 0x0000000000000000)
}

/** 1/3 - t/5 + t^2/7 - ...: arctan u = u (1 - u^2 times this at u^2). */
export function arcTangentSeries(valueHigh: u64, valueLow: u64): void {
  begin(valueHigh, valueLow, true, 0x08d3dcb08d3dcb08, 0xd3dcb08d3dcb08d4)
  step(0x097b425ed097b425, 0xed097b425ed097b4)
  step(0x0a3d70a3d70a3d70, 0xa3d70a3d70a3d70a)
  step(0x0b21642c8590b216, 0x42c8590b21642c86)
  step(0x0c30c30c30c30c30, 0xc30c30c30c30c30c)
  step(0x0d79435e50d79435, 0xe50d79435e50d794)
  step(0x0f0f0f0f0f0f0f0f, 0x0f0f0f0f0f0f0f0f)
  step(0x1111111111111111, 0x1111111111111111)
  step(0x13b13b13b13b13b1, 0x3b13b13b13b13b14)
  step(0x1745d1745d1745d1, 0x745d1745d1745d17)
  step(0x1c71c71c71c71c71, 0xc71c71c71c71c71c)
  step(0x2492492492492492, 0x4924924924924925)
  step(0x3333333333333333, 0x3333333333333333)
  step(0x5555555555555555, 0x5555555555555555)
}

/** arctan(k/8) / 4, for k = 0 to 8. */
export function arcTangentOfEighths(k: i32): void {
  switch (k) {
    case 1:
      setFraction(0x07f56ea6ab0bdb71, 0x9644bcc4f9f44478)
      return
    case 2:
      setFraction(0x0fadbafc96406eb1, 0x56dc79ef5f7a217e)
      return
    case 3:
      setFraction(0x16f61941e4def08e, 0x715464245b9fc890)
      return
    case 4:
      setFraction(0x1dac670561bb4f68, 0xadfc88bd978751a0)
      return
    case 5:
      setFraction(0x23c01757bdfd67e6, 0xd720d78599710dd2)
      return
    case 6:
      setFraction(0x292f1f464d3dc249, 0x066a1fca915f6b28)
      return
    case 7:
      setFraction(0x2e014f8af08c679c, 0xf2cb69548429110f)
      return
    case 8:
      setFraction(0x3243f6a8885a308d, 0x313198a2e0370734)
      return
    default:
      setFraction(0, 0)
  }
}

/** ln 2. */
export const LN2_HIGH: u64 = 0xb17217f7d1cf79ab
export const LN2_LOW: u64 = 0xc9e3b39803f2f6af

/** 1 / (2 ln 2). */
export const HALF_LOG2E_HIGH: u64 = 0xb8aa3b295c17f0bb
export const HALF_LOG2E_LOW: u64 = 0xbe87fed0691d3e89

/** pi / 4. */
export const QUARTER_PI_HIGH: u64 = 0xc90fdaa22168c234
export const QUARTER_PI_LOW: u64 = 0xc4c6628b80dc1cd1
