module claviger.invalid/wire-vectors

go 1.26
