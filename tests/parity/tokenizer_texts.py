"""The texts that every tokenizer golden is computed on. A pair (text, n) stands for the text repeated n times.

Only characters assigned up to Unicode 14 occur: tables of newer versions class new characters differently.
"""

ENGLISH = (
    "", " ", "a", "Hello", " Hello", "Hello ", "  Hello  ", "Hello world", "Hello, world!", "hello_world",
    "The quick brown fox jumps over the lazy dog.",
    "I'm sure they've said we'll go; he'd've known it's Sam's. DON'T SHOUT, I'LL SAY, WE'VE 'TIS 'twas",
    "don\u2019t can\u2019t we\u2019re \u2018quoted\u2019 \u201cdouble\u201d \u00abguillemets\u00bb",
    "e.g. i.e. U.S.A. 3 p.m. vs. etc... and so on\u2026 (see p. 42) [1] {x} <y> #tag @user 50% $9.99 a&b",
    "Well-known state-of-the-art re-use \u2013 en dash \u2014 em dash -- double hyphen",
    "CamelCaseWord snake_case_word kebab-case-word SCREAMING_SNAKE mIxEd",
    "naive na\u00efve caf\u00e9 Z\u00fcrich stra\u00dfe \u00c5ngstr\u00f6m \u0152uvre fa\u00e7ade \u0130stanbul \u0131l\u0131k",
)

WHITESPACE = (
    "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\r", " \n", "\n ", "\t\t", " \t \n \r\n ", "a b  c   d    e",
    "a\nb\n\nc\n\n\nd", "a\r\nb\r\n\r\nc", "line one\n  line two\n    line three\n", "\ttab\t\ttabs", "end   ",
    "trailing newline\n", "trailing newlines\n\n\n", "   leading", "\n\nleading newlines", "x \n y", "x\n \ny",
    "a\u00a0b\u00a0\u00a0c", "a\u3000b", "a\u2003b\u2009c\u200ad", "a\u2028b\u2029c", "a\u0085b", "a\u000bb\u000cc",
    "a\u200bb\u200cc\u200dd\u2060e\ufefff", "\u180ea\u180e",
)

DIGITS = (
    "0", "7", "42", "123", "1234", "12345", "1234567890", "3.14159", "1,000,000", "1e-5", "0x1F", "v1.2.3-rc4",
    "2026-11-23T16:22:56Z", "+44 20 7946 0958", "x2y3z4", "a1 b22 c333 d4444", "100%", "#42", "\u00b2\u00b3\u00b9",
    "\u00bd\u00bc\u00be", "\u2167\u2171", "\u0661\u0662\u0663\u0664\u0665", "\u0967\u0968\u0969", "\uff11\uff12\uff13", "\u2460\u2461\u2462",
    "\u4e00\u4e8c\u4e09\u767e", "\U0001d7d8\U0001d7d9",
)

CODE = (
    "int main() {\n  return 0;\n}\n", "def f(x):\n\treturn x ** 2  # square\n", "for (auto& [k, v] : map) std::cout << k;",
    "if (a && b || !c) { x += 1; y -= 2; z *= 3; }", "<div class=\"a b\">text &amp; more</div>",
    "{\"key\": [1, 2.5, null, true], \"nested\": {\"a\": \"b\\n\"}}", "SELECT * FROM t WHERE id = 'x' -- c",
    "https://example.org/path/to?q=a%20b&c=d#frag", "C:\\Users\\name\\file.txt", "/usr/local/bin/foo.sh",
    "a=b==c===d!=e!==f<=g>=h=>i->j::k..l...m", "```python\nprint('hi')\n```", "|a|b|\n|---|---|\n|1|2|",
    "\\alpha + \\frac{1}{2} = \\sum_{i=0}^{n} x_i^2", "        eight_spaces()\n\t\ttwo_tabs()\n",
    "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "-----=====*****_____", "// comment /* block */ # hash ;; lisp",
)

SCRIPTS = (
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01", "\u6211\u4eec\u5728\u5f88\u591a\u673a\u5668\u4e0a\u8fd0\u884c\u4e00\u4e2a\u5927\u6a21\u578b\u3002",
    "\u4e2d\u6587English\u6df7\u5408123\u6587\u672c", "\u3001\u3002\u300a\u4e66\u540d\u300b\u3010\u62ec\u53f7\u3011\u30fb", "\u7e41\u9ad4\u4e2d\u6587\u8207\u6f22\u5b57",
    "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c", "\u30ab\u30bf\u30ab\u30ca\u3068\u3072\u3089\u304c\u306a\u30fc\u30fc", "\uff76\uff80\uff76\uff85 \uff26\uff35\uff2c\uff2c",
    "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4", "\u1112\u1161\u11ab\u1100\u1173\u11af", "\U00020000\U00020001\u3400",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645\u060c \u0643\u064a\u0641 \u0627\u0644\u062d\u0627\u0644\u061f", "\u0627\u0644\u0652\u0639\u064e\u0631\u064e\u0628\u0650\u064a\u0651\u064e\u0629\u064f",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "\u05d1\u05bc\u05b0\u05e8\u05b5\u05d0\u05e9\u05b4\u05c1\u05d9\u05ea",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01", "\u0e01\u0e33\u0e25\u0e31\u0e07\u0e17\u0e14\u0e2a\u0e2d\u0e1a \u0e51\u0e52\u0e53",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e", "\u0995\u09cd\u09b7 \u09ac\u09be\u0982\u09b2\u09be", "\u0ba4\u0bae\u0bbf\u0bb4\u0bcd",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0401\u0436", "\u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5 \u039a\u03cc\u03c3\u03bc\u03b5 \u03a3\u03c2", "\u10d2\u10d0\u10db\u10d0\u10e0\u10ef\u10dd\u10d1\u10d0",
    "\u0531\u0580\u0587 \u0562\u0561\u0580\u0565\u0582", "Ti\u1ebfng Vi\u1ec7t", "\u12a0\u121b\u122d\u129b", "\u179f\u17bd\u179f\u17d2\u178f\u17b8", "\u1019\u103c\u1014\u103a\u1019\u102c",
)

COMBINING = (
    "e\u0301", "\u00e9", "cafe\u0301 caf\u00e9", "A\u030a \u00c5 \u212b", "o\u0302\u0323 \u1ed9", "\u0041\u0301\u0301\u0301", "\u0301", " \u0301x", "1\u0301",
    "z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319", "\ufb01\ufb02\ufb03", "\u1e9b\u0323", "\u2126\u03a9", "\u0958 \u0915\u093c", "\uac00\u11a8",
    "\u0344 \u0340 \u0387 \u037e", "\uf900\ufa10",
)

EMOJI = (
    "\U0001f600", "\U0001f600\U0001f601\U0001f602", "hi\U0001f44b\U0001f3fdthere", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f3f3\ufe0f\u200d\U0001f308",
    "\U0001f1e9\U0001f1ea\U0001f1ef\U0001f1f5", "1\ufe0f\u20e3#\ufe0f\u20e3", "\u2764\ufe0f \u2764", "\U0001f9d1\U0001f3ff\u200d\U0001f4bb", "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "\u2192\u21d2\u2200\u2203\u2208\u221e\u2260\u2264", "\u20ac\u00a3\u00a5\u20b9\u20bf", "\u00a9\u00ae\u2122\u00b0\u00b1\u00d7\u00f7", "\u2588\u2593\u2592\u2591 \u250c\u2500\u2510", "\U0001d504\U0001d505\U0001d400",
)

CONTROL = (
    "\u0000", "a\u0000b", "\u0000\u0000\u0000", "\u0001\u0002\u0003", "\u001b[31mred\u001b[0m", "\u007f", "\u0080\u009f", "\u00ad", "\ufffd", "\ufffe\uffff",
    "\ue000\uf8ff", "\U0010ffff", "\u202eabc\u202c", "\u061c\u200e\u200f", "\u0378\u0379",
    "x\u0004y\u0013z", "\u0016", "a\U00040000b",  # bytes that SmolLM2's vocabulary lacks: dropped without a trace
)

SPECIAL = (
    "<|endoftext|>", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "a<|im_end|>b", "a <|im_end|> b",
    "<|im_start", "<|im_start|", "|im_start|>", "<|im_start|><|im_start|>", "<|IM_START|>", "< |im_start| >",
    "<think>\nhm\n</think>\n\nok", "<tool_call>\n{\"name\": \"f\"}\n</tool_call>", "<|fim_prefix|>a<|fim_suffix|>b",
    "<\uff5cbegin\u2581of\u2581sentence\uff5c>x<\uff5cend\u2581of\u2581sentence\uff5c>", "<\uff5cUser\uff5c>hi<\uff5cAssistant\uff5c>yes", "<\uff5ctool\u2581calls\u2581begin\uff5c>",
    "<|begin_of_text|>x<|eot_id|>", "<s> </s> <unk> <pad> [INST] [/INST]", "<file_sep>a<reponame>b", "\u2581under\u2581line",
    "pad<|pad|>pad", "x <mask> y", "x<tail>   y", "keyword key keywords mykey key.", "<|endoftext|>\u0301", "a\u0120b\u010a\u0100",
)

# What scripts, blanks and broken cases add for vocabularies of plain text and for Kimi's Han rule.
MIXED = (
    "\u4f60\u597dHello\u4e16\u754c", "Hello\u4e16\u754c123\u4f60", " \u4e2d\u6587", "  \u4e2d \u6587  ", "a\u4e2db\u6587c", "\u4e2d\u0301\u6587",
    "\u3005\u3007\u3021\u3038", "1\u30072", "\u2e80\u2f00x", "!\u2e80\u2f00?", "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3067\u3059\u3002", "\u4eca\u65e5\u306f2026\u5e7411\u670825\u65e5",
    "\u6771\u4eac\u30bf\u30ef\u30fc", "\u97d3\u570b\uc5b4 \ud55c\uae00 \u6f22\u5b57", "\U0002a6d6\U0002f800\U00030000", "\u4e2d's \u6587'LL \u5b57'd", "x\u4e2d\n\u6587\r\n\n",
    "\uff08\u5168\u89d2\uff09\uff21\uff22\uff11\uff12\uff01", "\u201c\u5f15\u53f7\u201d\u2014\u2014\u2026\u2026", "ABCdef\u4e2dGHIjkl", "\u4e2d/\u6587//\n/", "\u4e00,\u4e8c;\u4e09",
    "McDonald's iPhone's HTTPServer2XML", "ABC'S abc'LL Abc'Re", "\u01c5ungla \u01c8ubav", "\u02b0\u02b1 \u1d2c\u1d2d", "\u00aa\u00ba x\u00aa", "a/b//c///\n", "?/\n/x", "\u0391\u0392\u0393\u03b1\u03b2\u03b3 \u0416\u0436",
    "\u2581", "\u2581a", "a\u2581", "\u2581\u2581", " \u2581 ", "a \u2581b", "\u2581 \u2581 x", "x\u2581\u2581\u2581y", "<0x41>", "a<0x0A>b", "<0xZZ><0x4>", "<0xe4><0xB8><0xAD>",
    "<s>", "</s>", "<unk>", "a<s>b", "<s> a", "<s>\n</s>", " <s> ", "<s><s>x", "[INST] hi [/INST]", "<s>[INST] a [/INST] b</s>", "<ud>", "a<ud>b", "a <ud> b", "<ud><ud>", "<ud>  x", "  <ud>", "<u", "x<udy",
    "<|im_end|> x", "[BOS]a[EOS]", "[EOS]\n", "<|im_user|>user<|im_middle|>hi<|im_end|>", "<|reserved_token_600|>", "[BO", "user<s>\u4e2d</s>",
    "\u0627\u0644\u0644\u063a\u0629 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 123 abc", "\u0641\u0627\u0631\u0633\u06cc \u06f1\u06f2\u06f3", "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22\u0e44\u0e21\u0e48\u0e21\u0e35\u0e0a\u0e48\u0e2d\u0e07\u0e27\u0e48\u0e32\u0e07",
    "\u0ea5\u0eb2\u0ea7 \u0f56\u0f7c\u0f51\u0f0b", "\u1820\u1821 \u13a0\u13a1\u13a2", "\u05d0\u05d1\u05d2 abc \u05d3\u05d4", "na\u0308ive co\u0302te\u0301", "\u1100\u1161\u11a8\u1102",
    "\U0001f469\U0001f3fe\u200d\U0001f680\U0001f469\U0001f3fe\u200d\U0001f680", "ok\U0001f44d\U0001f3fb!\U0001f44d", "\U0001f600a\U0001f600 b", "a\u0000 \u0000b", "\u0000<s>\u0000", "\ufeffa",
)

LONG = (
    ("a", 300), ("ab", 200), (" ", 500), ("\n", 100), ("\t", 64), ("=", 150), ("\u4f60", 60), ("\U0001f600", 30), ("1", 101),
    ("ha ", 40), ("\u0301", 40), (" a", 60), ("Donaudampfschifffahrtsgesellschaft", 3), ("x\n", 40), ("\r\n", 40),
    ("antidisestablishmentarianism ", 3), ("\u0e01\u0e34", 30), ("!?", 50), ("<|im_end|>", 20),
    ("\u4e2d\u6587", 100), ("\u4e2da", 60), ("<ud>", 30), ("<0x41>", 20), ("\u2581", 60), ("\u2581a ", 30), ("\u1019\u103c", 40), ("Ab", 60),
    # Words of 100 kB, which tokenizers must not take quadratic time for.
    ("a", 100_000), ("=", 100_000), (" ", 100_000),
)

TEXTS = [(text, 1) for group in (ENGLISH, WHITESPACE, DIGITS, CODE, SCRIPTS, COMBINING, EMOJI, CONTROL, SPECIAL, MIXED)
         for text in group] + list(LONG)
