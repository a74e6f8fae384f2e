// A DKIM verifier that shares nothing with the relay or with dkimpy: the second judge of the relay's signatures.
module malote.dev/dev/toolchain/dkimverify

go 1.24.0

require github.com/emersion/go-msgauth v0.7.0

require golang.org/x/crypto v0.31.0 // indirect
