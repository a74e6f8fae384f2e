"""The kinds of `malote.dev/v1alpha1` as typed structs, parsed once where objects enter the operator.

`crds/` is the authority on names, defaults and validation; a test proves that both agree.
"""

GROUP = "malote.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
