module claviger.test/knoxclient

go 1.21
