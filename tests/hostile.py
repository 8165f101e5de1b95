"""Texts that try to become markup, code or commands where they are shown."""

HOSTILE_TEXTS = (
    "</script><img src=x onerror=alert(1)><svg onload=alert(2)>",
    "<!--<script>alert(3)</script>-->",
    '"><script>alert(4)</script>',
    "' onmouseover='alert(5)",
    "javascript:alert(6)",
    "</title></style></textarea><iframe srcdoc='<script>alert(7)</script>'>",
    "&lt;img src=x onerror=alert(8)&gt;",
    "${alert(9)} {{alert(10)}} <%= alert(11) %>",
    "]]><![CDATA[ <a href=//evil.invalid>x</a>",
    "\u2028alert(12)\u2029//",
    "\x1b]8;;http://evil.invalid\x07click\x1b]8;;\x07 \x1b[2J\x1b[31mred",
    "\ud83d half a pair",
    "\u202egpj.exe",
    "data:text/html;base64,PHNjcmlwdD5hbGVydCgxMyk8L3NjcmlwdD4=",
    "__proto__",
    "a" * 5000,
)
