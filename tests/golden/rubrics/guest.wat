;; A rubric written by hand against the canonical ABI of wit/v0.2, so that a test can make it
;; misbehave in any way without a WASM compiler. tests/it/rubric/guest.rs wraps it into a component,
;; also one of wit/v0.1, whose verdict has no places: what follows them stands 8 bytes lower.
;;
;; `parse` does what the first byte of the answer says. A value after a (;name;) comment is a knob
;; that a test turns; the values here give a rubric that loads.
(module
  (import "gradus:rubric/log@0.2.0" "write" (func $log (param i32 i32 i32)))
  (;imports;)
  (memory (export "memory") (;memory-pages;) 1)
  (table (;table-size;) 1 funcref)
  (;more;)
  (global $top (mut i32) (i32.const 8192))
  (global $calls (mut i32) (i32.const 0))

  ;; Texts and numbers.
  (data (i32.const 1024) "hostile")
  (data (i32.const 1040) "1.0")
  (data (i32.const 1048) "a test guest")
  (data (i32.const 1072) "task")
  (data (i32.const 1080) "answer")
  (data (i32.const 1088) (;good-answer;) "good")
  (data (i32.const 1096) "?bad")
  (data (i32.const 1104) "What?")
  (data (i32.const 1112) "Score:")
  (data (i32.const 1120) "0")
  (data (i32.const 1124) (;second-choice;) "1")
  (data (i32.const 1128) "\ff")
  (data (i32.const 1136) "last words")
  (data (i32.const 1200) (f64 1 (;choice-score;) 0 50 nan inf))
  (data (i32.const 1280) (f64 (;expected;) 1))
  (data (i32.const 1300) (i32 1080 6))
  (data (i32.const 1400) "name 3 animals .")

  ;; info: name, version, description; subject; candidates; scale; aggregation, order-sensitive.
  (data (i32.const 2048) (i32 1024 (;name-bytes;) 7 1040 3 1048 12) (i8 0 0 0 0))
  (data (i32.const 2076) (i32 (;candidates-min;) 1 (;candidates-max;) 1))
  (data (i32.const 2088) (f64 (;scale-min;) 0 (;scale-max;) 1) (i8 0 0))

  ;; Two examples: "good" scores, "bad" is rejected. Each is name, item, answer, expectation.
  (data (i32.const 2192) (i32 2200 (;examples;) 2))
  (data (i32.const 2200) (i32 1088 4  1072 4  0 0 0  0 0 0  1300 1  0 0  1088 4  0 1280 1))
  (data (i32.const 2276) (i32 1097 3  1072 4  0 0 0  0 0 0  1300 1  0 0  1096 4  1 0 0))

  ;; The prompt: ok; messages, max-tokens, stop; readout with its lead and choices.
  (data (i32.const 2400) (i32 (;render-fails;) 0 (;first;) 2460 (;messages;) 1 (;max-tokens;) 64 0 0))
  (data (i32.const 2424) (i32 (;readout;) 1 1112 6 2480 (;choices;) 2))
  (data (i32.const 2460) (i32 (;role;) 1 (;question;) 1104 (;question-bytes;) 5))
  (data (i32.const 2480) (i32 1120 1 1208 (;scores;) 1  1124 1 1200 1))

  ;; The places of a verdict: where each begins and ends, what it weighs, and its choices.
  (data (i32.const 2800) (i32 (;place-start;) 6 (;place-end;) 7))
  (data (i32.const 2808) (f64 (;place-weight;) 1))
  (data (i32.const 2816) (i32 (;place-choices;) 2880 (;place-choice-count;) 2))
  (data (i32.const 2824) (i32 (;second-start;) 8 (;second-end;) 9))
  (data (i32.const 2832) (f64 2))
  (data (i32.const 2840) (i32 2880 2))
  (data (i32.const 2880) (i32 (;place-choice;) 1120 (;place-choice-bytes;) 1 1208 (;place-scores;) 1))
  (data (i32.const 2896) (i32 1124 1 (;place-score;) 1200 1))

  (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and
      (i32.sub (i32.add (global.get $top) (local.get $align)) (i32.const 1))
      (i32.sub (i32.const 0) (local.get $align))))
    (global.set $top (i32.add (local.get $at) (local.get $size)))
    (if (i32.gt_u (global.get $top) (i32.shl (memory.size) (i32.const 16)))
      (then (drop (memory.grow
        (i32.add (i32.shr_u (local.get $size) (i32.const 16)) (i32.const 1))))))
    (local.get $at))

  (func (export "gradus:rubric/judge@0.2.0#describe") (result i32)
    (;describe;) nop
    (i32.const 2048))
  (func (export "gradus:rubric/judge@0.2.0#examples") (result i32)
    (;examples-first;) nop
    (i32.const 2192))
  (func (export "gradus:rubric/judge@0.2.0#render")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
    (;render;) nop
    (i32.const 2400))

  ;; Writes ok(verdict) with these scores and this rationale.
  (func $verdict (param $scores i32) (param $n i32) (param $text i32) (param $bytes i32)
    (i32.store (i32.const 2600) (i32.const 0))
    (i32.store (i32.const 2608) (local.get $scores))
    (i32.store (i32.const 2612) (local.get $n))
    (i32.store (i32.const 2616) (i32.const 0))
    (i32.store (i32.const 2620) (i32.const 0))
    (i32.store (i32.const (;criteria;) 2624) (i32.const 0))
    (i32.store (i32.const (;criteria-count;) 2628) (i32.const 0))
    (i32.store (i32.const (;rationale;) 2632) (local.get $text))
    (i32.store (i32.const (;rationale-bytes;) 2636) (local.get $bytes)))
  (func $good (param $scores i32) (param $n i32)
    (call $verdict (local.get $scores) (local.get $n) (i32.const 1136) (i32.const 10)))
  (func $forever (loop $again (br $again)))
  (func $recurse (result i32) (i32.add (call $recurse) (i32.const 1)))
  (func $eat (param $pages i32)
    (loop $again (drop (memory.grow (local.get $pages))) (br $again)))
  (func $fill (local $at i32)
    (loop $again
      (local.set $at (i32.shl (memory.grow (i32.const 16)) (i32.const 16)))
      (memory.fill (local.get $at) (i32.const 7) (i32.const 1048576))
      (br $again)))
  (func $seats
    (loop $again (drop (table.grow (ref.null func) (i32.const 1000000))) (br $again)))
  (func $chatter
    (loop $again (call $log (i32.const 1) (i32.const 1136) (i32.const 10)) (br $again)))

  (func $parse (export "gradus:rubric/judge@0.2.0#parse")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (param $answer i32) (param $bytes i32)
    (result i32)
    (local $do i32)
    ;; err(missing), until something else is written.
    (i32.store8 (i32.const 2600) (i32.const 1))
    (i32.store8 (i32.const 2608) (i32.const 0))
    (if (i32.eqz (local.get $bytes)) (then (return (i32.const 2600))))
    (local.set $do (i32.load8_u (local.get $answer)))
    (if (i32.eq (local.get $do) (i32.const (;good;) 103)) ;; g: good
      (then (call $good (i32.const 1200) (i32.const 1))))
    (if (i32.eq (local.get $do) (i32.const 88)) ;; X: good, and where that was read
      (then
        (call $good (i32.const 1200) (i32.const 1))
        (i32.store (i32.const 2616) (i32.const (;places-at;) 2800))
        (i32.store (i32.const 2620) (i32.const (;places;) 1))))
    (if (i32.eq (local.get $do) (i32.const 115)) ;; s: a score outside the scale
      (then (call $good (i32.const 1216) (i32.const 1))))
    (if (i32.eq (local.get $do) (i32.const 110)) ;; n: NaN
      (then (call $good (i32.const 1224) (i32.const 1))))
    (if (i32.eq (local.get $do) (i32.const 105)) ;; i: infinite
      (then (call $good (i32.const 1232) (i32.const 1))))
    (if (i32.eq (local.get $do) (i32.const 50)) ;; 2: two scores for one candidate
      (then (call $good (i32.const 1200) (i32.const 2))))
    (if (i32.eq (local.get $do) (i32.const 48)) ;; 0: no score in a verdict
      (then (call $good (i32.const 1200) (i32.const 0))))
    (if (i32.eq (local.get $do) (i32.const 99)) ;; c: counts its calls, 1 in a fresh instance
      (then
        (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (f64.store (i32.const 2704) (f64.convert_i32_u (global.get $calls)))
        (call $good (i32.const 2704) (i32.const 1))))
    (if (i32.eq (local.get $do) (i32.const 108)) (then (call $forever))) ;; l: loop
    (if (i32.eq (local.get $do) (i32.const 109)) ;; m: memory, a megabyte at a time
      (then (call $eat (i32.const 16))))
    (if (i32.eq (local.get $do) (i32.const 77)) ;; M: memory, all at once
      (then (call $eat (i32.const 32768))))
    (if (i32.eq (local.get $do) (i32.const 102)) (then (call $fill))) ;; f: fills what it gets
    (if (i32.eq (local.get $do) (i32.const 116)) ;; t: a table, a million places at a time
      (then (call $seats)))
    (if (i32.eq (local.get $do) (i32.const 114)) (then (drop (call $recurse)))) ;; r: recursion
    (if (i32.eq (local.get $do) (i32.const 117)) (then (unreachable))) ;; u: unreachable
    (if (i32.eq (local.get $do) (i32.const 122)) ;; z: division by zero
      (then (drop (i32.div_u (i32.const 1) (global.get $calls)))))
    (if (i32.eq (local.get $do) (i32.const 111)) ;; o: reads outside its memory
      (then (drop (i32.load (i32.const -4)))))
    (if (i32.eq (local.get $do) (i32.const 112)) ;; p: hands over a pointer outside its memory
      (then (call $verdict (i32.const 1200) (i32.const 1) (i32.const -65536) (i32.const 10))))
    (if (i32.eq (local.get $do) (i32.const 98)) ;; b: hands over bytes that are no text
      (then (call $verdict (i32.const 1200) (i32.const 1) (i32.const 1128) (i32.const 1))))
    (if (i32.eq (local.get $do) (i32.const 101)) ;; e: neither ok nor err
      (then (i32.store8 (i32.const 2600) (i32.const 7))))
    (if (i32.eq (local.get $do) (i32.const 104)) ;; h: a huge rationale
      (then
        (drop (memory.grow (i32.const 640)))
        (call $verdict (i32.const 1200) (i32.const 1) (i32.const 4096) (i32.const 40000000))))
    (if (i32.eq (local.get $do) (i32.const 119)) (then (call $chatter))) ;; w: writes to the log
    (if (i32.eq (local.get $do) (i32.const 87)) ;; W: a last word, then a panic
      (then
        (call $log (i32.const 3) (i32.const 1136) (i32.const 10))
        (unreachable)))
    (i32.const 2600))
)
